"""
The transactional outbox: work that happens later is a row, and only the relay hands rows to Celery.

The root holds what other apps import; the packages hold the implementation. Nothing here knows orders,
notifications or the project.
"""
