"""A workflow for real workers: `celery -A orderflow worker -I tests.chaos.workflows`."""

from outbox import registry
from tests.chaos import tasks
from tests.outbox.events import Happened


def finishing(message):
    return tasks.finish.si(message_id=str(message.id))


registry.subscribe([(Happened, finishing)])
