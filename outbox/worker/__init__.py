"""
The guarded Celery worker: its consumer, its requests, its scheduler.

A message that is no task, or that ends its worker, becomes a dead letter instead of stopping the queue. How a
task takes a message is in `outbox.consumer`; this is what runs it.
"""
