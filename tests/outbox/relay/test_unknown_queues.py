"""A message for a queue that Celery does not know waits, and holds up no other."""

from __future__ import annotations

import pytest
from celery import current_app, shared_task
from celery.exceptions import QueueNotFound
from django.db import transaction

from outbox import publisher
from outbox.broker import inspection
from outbox.consumer import ConsumerTask
from outbox.models import Attempt, DeadLetter, OutboxMessage
from tests.outbox.events import Happened

pytestmark = pytest.mark.django_db(transaction=True)

SEEN: list[str] = []


@shared_task(name="tests.note_known")
def note(**ids):
    SEEN.append(ids["about"])


@shared_task(base=ConsumerTask)
def note_reliably(**ids):
    SEEN.append(ids["about"])


def misrouted_by_its_route(message):
    task = note_reliably if message.event.about.startswith("bad") else note
    return task.si(about=message.event.about)


def misrouted(message):
    canvas = note.si(about=message.event.about)
    return canvas.set(queue="mistyped") if message.event.about.startswith("bad") else canvas


@pytest.fixture(autouse=True)
def forget():
    SEEN.clear()


def publish(*about):
    with transaction.atomic():
        return publisher.publish_many(Happened(about=each) for each in about)


def test_a_message_for_a_queue_that_is_not_configured_waits_and_holds_up_nobody(drain, subscribed):
    subscribed(misrouted)
    publish("bad", *"abcdef")
    drain()

    assert sorted(SEEN) == list("abcdef")
    waiting = OutboxMessage.objects.get(key="bad")
    assert (waiting.status, waiting.attempts) == ("pending", 0)
    assert waiting.last_error.startswith("NotDelivered: no queue accepts the work of ")


@pytest.fixture
def route_to_nowhere():
    """Route the task `note_reliably` to a queue that Celery does not know."""

    def use(routes):
        current_app.conf.task_routes = routes
        inspection.queue_of_task.cache_clear()
        current_app.amqp.flush_routes()
        vars(current_app.amqp).pop("router", None)

    before = current_app.conf.task_routes
    use({note_reliably.name: {"queue": "mistyped"}, **before})
    yield
    use(before)


@pytest.mark.usefixtures("route_to_nowhere")
def test_a_message_of_a_route_to_a_queue_that_is_not_configured_waits_and_holds_up_nobody(drain, subscribed):
    subscribed(misrouted_by_its_route)
    publish("bad", *"abcdef")
    drain()

    assert sorted(SEEN) == list("abcdef")
    waiting = OutboxMessage.objects.get(key="bad")
    assert waiting.last_error.startswith("NotDelivered: no queue accepts the work of ")
    assert (waiting.status, waiting.attempts) == ("pending", 0)


def test_a_step_whose_successor_has_no_such_queue_is_done_and_its_message_waits(drain, subscribed):
    """Celery reports a failure of the step, because it could not send the next one."""
    subscribed(misrouted_by_its_route)
    [message_id] = publish("good")
    drain()

    ids = {"message_id": str(message_id), "about": "good"}
    note_reliably.on_failure(QueueNotFound("mistyped"), str(message_id), (), ids, None)

    [attempt] = Attempt.objects.filter(message_id=message_id)
    assert (attempt.outcome, attempt.error_class) == (Attempt.Outcome.WAITED, "QueueNotFound")
    assert not DeadLetter.objects.exists()
