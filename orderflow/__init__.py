"""
The project: wires outbox, orders and notifications together, and runs them.

This package imports nothing by itself: the stack and the sandbox start without Django and Celery. Settings
read the environment; no other file does.
"""
