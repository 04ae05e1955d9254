"""
Code that depends on kombu and on the wire formats of Redis and RabbitMQ.

`dispatch` is the only file of the project that publishes work to Celery. The transports replace kombu's where
those lose messages. Batches are built from message templates.
"""
