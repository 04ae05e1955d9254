"""
The guarded Celery worker: its consumer, its requests and its scheduler.

A message that is not a task, or that kills its worker, becomes a dead letter instead of stopping the queue.
`outbox.consumer` defines how a task handles a message; this package runs it.
"""
