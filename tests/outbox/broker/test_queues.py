"""The queues of RabbitMQ in all its versions, and messages that the broker gave up."""

from __future__ import annotations

import logging
import socket
import threading
import uuid

import kombu
import pytest
from celery import Celery
from celery.worker.consumer import Consumer
from django.db import connections

import celeryconfig
from orderflow.celery import app as project
from outbox.broker import amqp_transport, queues
from outbox.models import DeadLetter
from outbox.worker import dead_letter_queues
from outbox.worker.consumer import GuardedConsumer
from tests.chaos.conftest import AMQP_URL, NO_RABBITMQ
from tests.processes import eventually
from tests.rabbitmq_hosts import answers, own_connections

pytestmark = pytest.mark.processes
LOSSES_OF_A_CONNECTION = 25
"""RabbitMQ 4 gives up a message at the 21st delivery by default."""


def quorum_queue(name, **arguments):
    return kombu.Queue(
        name,
        kombu.Exchange(name, type="topic"),
        routing_key=name,
        queue_arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": celeryconfig.DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": f"{name}.dead",
            **arguments,
        },
    )


@pytest.fixture
def app():
    """An app on RabbitMQ with two new queues."""
    if not answers(AMQP_URL):
        pytest.skip(NO_RABBITMQ)
    made = Celery("queues", broker=AMQP_URL, set_as_current=False)
    names = [f"queues-{uuid.uuid4()}" for _ in range(2)]
    made.conf.update(
        task_queues=[quorum_queue(name) for name in names],
        task_default_queue=names[0],
        task_default_exchange_type="topic",
        broker_transport_options=own_connections(names[0]),
    )
    made.tasks.update({"orders.tasks.charge": project.tasks["orders.tasks.charge"]})
    yield made
    with made.connection_for_write() as connection, connection.channel() as channel:
        for name in names:
            for left in (name, f"{name}.dead"):
                channel.queue_delete(left)
            channel.exchange_delete(name)
    made.pool.force_close_all()
    made.close()


@pytest.fixture
def connection(app):
    with app.connection_for_write() as connection:
        connection.connect()
        yield connection


class Starting:
    """The part of a worker that a boot step uses."""

    def __init__(self, app, connection):
        self.app, self.connection = app, connection


def start(app, connection):
    dead_letter_queues.Queues(Starting(app, connection)).start(Starting(app, connection))


def names(app):
    return list(app.amqp.queues)


def give_up(app, connection, *, queue="", reject=False, task="orders.tasks.teleport"):
    """Make the broker give up a message, by losing it too often or by rejecting it."""
    queue = queue or names(app)[0]
    headers = {"task": task, "id": str(uuid.uuid4()), "message_id": str(uuid.uuid4())}
    with connection.channel() as channel:
        kombu.Producer(channel).publish(
            [[], {"order_id": "o-1"}, {}], exchange="", routing_key=queue, headers=headers, serializer="json"
        )
        if reject:
            eventually(lambda: channel.basic_get(queue), "the message")
            channel.basic_reject(1, requeue=False)
    for _ in range(0 if reject else celeryconfig.DELIVERY_LIMIT + 1):
        lose(app, queue)


def lose(app, queue):
    """Take a message and lose the connection."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        eventually(lambda: channel.basic_get(queue), "the message comes back")
        connection.connection.sock.shutdown(socket.SHUT_RDWR)
        connection.collect()


def waiting(connection, queue):
    with connection.channel() as channel:
        return channel.queue_declare(queue, passive=True).message_count


def keep_letters(app, until):
    """Empty the dead letter queues until a condition holds."""
    stopping = threading.Event()

    def empty():
        dead_letter_queues.bury_undeliverable(app, stopping)
        connections.close_all()

    emptying = threading.Thread(target=empty)
    emptying.start()
    try:
        return eventually(until, "the dead letter queues are emptied")
    finally:
        stopping.set()
        emptying.join()


def has_limit(connection, queue):
    """Whether a queue has RabbitMQ 4's default delivery limit."""
    plain = kombu.Queue(queue, kombu.Exchange(""), queue, queue_arguments={"x-queue-type": "quorum"})
    try:
        with connection.channel() as channel:
            plain(channel).declare()
    except connection.channel_errors:
        return False
    return True


@pytest.mark.parametrize("scheme", ["amqp", "amqps", "pyamqp"])
def test_tasks_are_mandatory_under_every_name_of_the_transport(scheme):
    with kombu.Connection(f"{scheme}://127.0.0.1:1//") as connection:
        assert connection.transport.Connection is amqp_transport.Connection


def test_a_dead_letter_survives_any_number_of_lost_connections(app, connection):
    start(app, connection)
    dead = f"{names(app)[0]}.dead"
    with connection.channel() as channel:
        kombu.Producer(channel).publish({}, exchange="", routing_key=dead)
    for _ in range(LOSSES_OF_A_CONNECTION):
        lose(app, dead)

    eventually(lambda: waiting(connection, dead) == 1, "the message is still there")


@pytest.mark.parametrize(
    ("version", "is_unlimited"), [("3.10.8", False), ("3.13.7", False), ("4.0.5", True), ("4.3.6", True)]
)
def test_dead_letter_queues_are_declared_without_a_limit_where_a_broker_has_one(
    app, connection, monkeypatch, version, is_unlimited
):
    monkeypatch.setitem(connection.connection.server_properties, "version", version)
    start(app, connection)

    assert [has_limit(connection, f"{name}.dead") for name in names(app)] == [not is_unlimited] * 2


@pytest.mark.slow
def test_a_dead_letter_queue_from_before_an_upgrade_of_the_broker_is_emptied_and_then_has_no_limit(
    app, connection, monkeypatch, transactional_db
):
    [old, _] = queues.dead_queues(app, names(app))
    old(connection.default_channel).declare()
    start(app, connection)
    give_up(app, connection, reject=True)
    eventually(lambda: waiting(connection, old.name) == 1, "the broker gives it up")

    monkeypatch.setattr(queues, "limits_deliveries", lambda connection: True)
    start(app, connection)
    keep_letters(app, lambda: DeadLetter.objects.exists() and not has_limit(connection, old.name))
    assert DeadLetter.objects.count() == 1


@pytest.mark.slow
def test_a_dead_letter_queue_of_an_older_broker_is_replaced_when_it_is_empty(app, connection, transactional_db):
    [old, _] = queues.dead_queues(app, names(app))
    old(connection.default_channel).declare()
    start(app, connection)
    start(app, connection)
    give_up(app, connection)
    eventually(lambda: waiting(connection, old.name) == 1, "the broker gives it up")

    keep_letters(app, lambda: DeadLetter.objects.exists() and renewed(connection, old.name))
    assert DeadLetter.objects.count() == 1
    give_up(app, connection)
    eventually(lambda: waiting(connection, old.name) == 1, "the new queue takes what is given up")


def renewed(connection, name):
    return not queues.limits_deliveries(connection) or not has_limit(connection, name)


def test_a_queue_that_is_not_empty_is_not_replaced(app, connection):
    [old, _] = queues.dead_queues(app, names(app))
    old(connection.default_channel).declare()
    with connection.channel() as channel:
        kombu.Producer(channel).publish({}, exchange="", routing_key=old.name)
    eventually(lambda: waiting(connection, old.name), "the message")

    assert not queues.renew(connection, old)
    assert waiting(connection, old.name) == 1


@pytest.mark.slow
def test_a_dead_letter_after_the_delivery_limit_counts_every_delivery(app, connection, transactional_db):
    start(app, connection)
    give_up(app, connection)
    [dead_letter] = keep_letters(app, lambda: list(DeadLetter.objects.all()))

    assert dead_letter.attempts == celeryconfig.DELIVERY_LIMIT + 1
    assert "delivery_limit" in dead_letter.error


def test_its_count_is_right_although_the_relay_was_lost_with_it(app, connection, transactional_db):
    start(app, connection)
    give_up(app, connection)
    for _ in range(3):
        lose(app, f"{names(app)[0]}.dead")
    [dead_letter] = keep_letters(app, lambda: list(DeadLetter.objects.all()))

    assert dead_letter.attempts == celeryconfig.DELIVERY_LIMIT + 1


@pytest.mark.slow
def test_a_dead_letter_of_a_rejected_message_counts_one_delivery(app, connection, transactional_db):
    start(app, connection)
    give_up(app, connection, reject=True)
    [dead_letter] = keep_letters(app, lambda: list(DeadLetter.objects.all()))

    assert (dead_letter.attempts, "rejected" in dead_letter.error) == (1, True)


@pytest.mark.slow
@pytest.mark.parametrize(("is_counted_there", "attempts"), [(True, 3), (False, 1)])
def test_the_delivery_count_is_used_only_if_it_belongs_to_the_queue_that_gave_up(
    app, connection, monkeypatch, transactional_db, is_counted_there, attempts
):
    """Before RabbitMQ 4 the count is that of the dead letter queue."""
    start(app, connection)
    headers = {"task": "orders.tasks.teleport", "id": str(uuid.uuid4()), "x-delivery-count": 3}
    with connection.channel() as channel:
        kombu.Producer(channel).publish(
            [[], {}, {}], exchange="", routing_key=f"{names(app)[0]}.dead", headers=headers, serializer="json"
        )
    monkeypatch.setattr(queues, "limits_deliveries", lambda connection: is_counted_there)
    [dead_letter] = keep_letters(app, lambda: list(DeadLetter.objects.all()))

    assert dead_letter.attempts == attempts


def alarms(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.CRITICAL]


def test_a_new_broker_causes_no_alarm_and_has_delays_for_every_queue(app, connection, caplog):
    start(app, connection)
    assert not alarms(caplog)

    for name in names(app):
        app.send_task("tests.later", queue=name, countdown=1)
    eventually(
        lambda: all(waiting(connection, name) == 1 for name in names(app)), "the delayed messages", within=20
    )


def test_missing_delayed_delivery_raises_an_alarm(app, connection, caplog):
    """For example, because the account may not configure the queues, or another application declared them."""
    start(app, connection)
    app.conf.broker_native_delayed_delivery_queue_type = "classic"
    start(app, connection)

    [alarm] = alarms(caplog)
    assert "Native delayed delivery will not be available" in alarm
    assert "celery_delayed_" in alarm


def test_a_queue_that_cannot_be_declared_does_not_block_the_others(app, connection, caplog):
    [wrong, right] = names(app)
    kombu.Queue(wrong, kombu.Exchange(""), routing_key=wrong)(connection.default_channel).declare()
    start(app, connection)

    assert waiting(connection, right) == 0
    assert wrong in caplog.text
    assert not alarms(caplog)


def test_a_message_with_arguments_its_task_cannot_read_is_buried(app, connection, transactional_db):
    """The task has an `on_buried` hook, and the order's id is invalid."""
    start(app, connection)
    give_up(app, connection, task="orders.tasks.charge")
    [dead_letter] = keep_letters(app, lambda: list(DeadLetter.objects.all()))

    assert (dead_letter.consumer, dead_letter.key) == ("orders.tasks.charge", "o-1")


def test_the_step_replaces_celerys():
    ours, theirs = GuardedConsumer.Blueprint.default_steps, Consumer.Blueprint.default_steps
    assert set(theirs) - set(ours) == {"celery.worker.consumer.delayed_delivery:DelayedDelivery"}
    assert "outbox.worker.dead_letter_queues:Queues" in ours
