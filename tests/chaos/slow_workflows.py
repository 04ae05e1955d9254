"""A slow workflow for real workers: `celery -A orderflow worker -I tests.chaos.slow_workflows`."""

from outbox import registry
from tests.chaos import tasks
from tests.outbox.events import Happened


def lingering(message):
    return tasks.linger.si(message_id=str(message.id), seconds=0.3).set(queue="sms")


registry.subscribe([(Happened, lingering)])
