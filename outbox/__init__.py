"""
The transactional outbox: what happens later is a row, and only the relay hands rows to Celery.

The root holds the nouns that other apps use; what stands behind them is in packages. Nothing here knows orders,
notifications or the project.
"""
