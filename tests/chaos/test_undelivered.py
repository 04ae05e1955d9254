"""Messages for which RabbitMQ has no queue: they count as undelivered, whatever the broker confirms."""

from __future__ import annotations

import contextlib
import uuid

import amqp
import kombu
import pytest
from django.db import transaction

from outbox import publisher
from outbox.models import Attempt, DeadLetter, Delivery, OutboxMessage, QueueProbe
from outbox.relay import preparing
from tests.chaos.conftest import NO_RABBITMQ, TASKS, has_run, written_message
from tests.outbox.events import Happened
from tests.processes import eventually

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.django_db(transaction=True)]

WORKFLOWS = "tests.chaos.workflows"
FINISH = f"{TASKS}.finish"


def delete(channel):
    channel.queue_delete("jobs")


def unbind(channel):
    channel.queue_unbind("jobs", "jobs", "jobs")
    channel.queue_unbind("jobs", "jobs", "#.jobs")


def delete_with_its_exchange(channel):
    channel.queue_delete("jobs")
    channel.exchange_delete("jobs")


@pytest.fixture(params=[delete, unbind, delete_with_its_exchange], ids=lambda harm: harm.__name__)
def harm(request, amqp_broker):
    """Remove the queue `jobs` in one of the ways in which RabbitMQ confirms messages that it drops."""

    def harm():
        with amqp_broker.link.channel() as channel:
            request.param(channel)

    return harm


@pytest.fixture(scope="module", autouse=True)
def rabbitmq(amqp_broker):
    if amqp_broker is None:
        pytest.skip(NO_RABBITMQ)
    yield
    with amqp_broker.link.channel() as channel:
        channel.queue_delete("jobs")


@pytest.fixture(scope="module")
def relay(rabbitmq, amqp_broker, stack):
    """A relay without consumers for its messages."""
    started = stack.relay(include=WORKFLOWS, BROKER_URL=amqp_broker.url)
    started.wait_until_ready()
    return started


@pytest.fixture(scope="module")
def worker(rabbitmq, amqp_broker, stack):
    """A worker whose steps are followed by others in the queue `jobs`, which has no consumer."""
    started = stack.worker(
        "first", "orders", include=TASKS, BROKER_URL=amqp_broker.url, CHAIN_INLINE_SECONDS="0"
    )
    started.wait_until_ready()
    return started


@pytest.fixture
def waiting(amqp_broker):
    """The number of messages in `jobs`; None while there is no such queue."""

    def waiting():
        with contextlib.suppress(amqp.NotFound):
            return amqp_broker.waiting("jobs")
        return None

    amqp_broker.purge()
    return waiting


def publish(number=1):
    with transaction.atomic(durable=True):
        return [publisher.publish(Happened(about=str(at))) for at in range(number)]


def start_chain(broker):
    """Send a step whose message is written, followed by another one in the queue `jobs`."""
    message_id = str(written_message().pk)
    kwargs = {"message_id": message_id}
    following = {
        "task": FINISH, "args": [], "kwargs": kwargs, "options": {"task_id": str(uuid.uuid4())},
        "subtask_type": None, "immutable": True,
    }  # fmt: skip
    headers = {"task": FINISH, "id": str(uuid.uuid4()), "lang": "py", "workflow": "tests.workflow"}
    broker.send([[], kwargs, {"chain": [following]}], headers=headers)
    return message_id


@contextlib.contextmanager
def impossible_queue(broker):
    """In place of `jobs`, a queue that cannot be declared as configured and has no binding."""
    with broker.link.channel() as channel:
        channel.queue_delete("jobs")
        kombu.Queue("jobs", kombu.Exchange(""), routing_key="jobs", durable=True)(channel).declare()
    yield
    with broker.link.channel() as channel:
        channel.queue_delete("jobs")


def test_the_relay_declares_a_missing_queue_again_and_loses_none(relay, waiting, harm):
    publish(3)
    eventually(lambda: waiting() == 3, lambda: f"{waiting()} of 3 messages: {relay.output()[-3000:]}")
    harm()
    publish(120)

    eventually(lambda: not OutboxMessage.objects.exclude(status="published").exists(), "all are published")
    probes = QueueProbe.objects.filter(queue="jobs").count()
    assert probes == 120 // preparing.PROBED_EVERY
    left = {120 + probes, 123 + probes}  # an unbound queue keeps its messages
    eventually(lambda: waiting() in left, lambda: f"{waiting()} messages of {left}")


def test_a_message_that_no_queue_accepts_waits_visibly_and_spends_no_attempt(relay, waiting, amqp_broker):
    with impossible_queue(amqp_broker):
        [message_id] = publish()
        waits = OutboxMessage.objects.filter(pk=message_id, last_error__contains="no queue accepts")
        found = eventually(waits.first, "the reason")
        assert (found.status, found.attempts, found.published_at) == ("pending", 0, None)
        assert found.workflows == [f"{WORKFLOWS}.finishing"]
        eventually(lambda: relay.has_logged("message.undelivered"), "a word in the log")
    eventually(lambda: waiting() == 1, "the message")
    assert not Attempt.objects.exists()


def test_a_worker_sends_the_next_step_to_a_queue_that_it_declares_again(worker, waiting, harm, amqp_broker):
    start_chain(amqp_broker)
    eventually(lambda: waiting() == 1, "a queue and a worker that knows it")
    harm()
    message_id = start_chain(amqp_broker)

    eventually(lambda: has_run(message_id), "the first link")
    left = 2 if harm.__name__ == "unbind" else 1
    eventually(lambda: (waiting() or 0) >= left or None, "the next one")
    assert not DeadLetter.objects.exists()
    assert not Attempt.objects.exclude(outcome=Attempt.Outcome.WAITED).exists()


def test_a_next_step_that_no_queue_accepts_is_redelivered_from_the_database(worker, waiting, amqp_broker):
    start_chain(amqp_broker)
    eventually(lambda: waiting() == 1, "a worker that does not declare the queue any more")
    with impossible_queue(amqp_broker):
        message_id = start_chain(amqp_broker)
        waits = Delivery.objects.filter(message_id=message_id, workflow="tests.workflow", status="waiting")
        eventually(waits.exists, "a redelivery")
        assert OutboxMessage.objects.get(pk=message_id).redeliveries == 1
    [attempt] = Attempt.objects.filter(message_id=message_id, consumer=FINISH)
    assert attempt.outcome == Attempt.Outcome.WAITED
    assert not DeadLetter.objects.exists()


def test_a_quick_retry_survives_the_loss_of_what_delays_it(worker, waiting, amqp_broker):
    with amqp_broker.link.channel() as channel:
        for level in range(28):
            channel.queue_delete(f"celery_delayed_{level}")
            channel.exchange_delete(f"celery_delayed_{level}")
    message_id = amqp_broker.send_task(f"{TASKS}.fail_once", message_id=written_message().pk)

    eventually(lambda: has_run(message_id), "the second try")
