"""
The project: connects outbox, orders and notifications, and runs them.

This package imports nothing by itself: the stack and the sandbox start without Django and Celery. Only the
settings read the environment.
"""
