"""Which Celery task an enqueued task becomes, and in which queue."""

from __future__ import annotations

from typing import Any

from celery.canvas import Signature

from outbox.contracts import Message
from outbox.django_tasks import queues, tasks
from outbox.django_tasks.contracts import TaskEnqueued


def background(message: Message) -> Signature:
    event: Any = message.event
    canvas: Signature = tasks.run.si(message_id=str(message.id))
    queue = queues.celery_queue(queues.of_backend(event.backend), event.queue_name, event.priority)
    return canvas.set(queue=queue) if queue else canvas


SUBSCRIPTIONS = [(TaskEnqueued, background)]
