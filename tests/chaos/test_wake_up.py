"""How soon the relay starts committed work, and what happens when it misses notifications."""

from __future__ import annotations

import time

import kombu
import pytest
from django.db import connection, transaction

import celeryconfig
from outbox import publisher
from outbox.models import DeadLetter, RelayState
from tests.chaos.conftest import NO_RABBITMQ, has_run
from tests.outbox.events import Happened
from tests.processes import eventually

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

WORKFLOWS = "tests.chaos.workflows"


def is_asleep():
    return RelayState.objects.filter(sleeping=True).exists()


def publish():
    with transaction.atomic(durable=True):
        return publisher.publish(Happened())


@pytest.fixture(scope="module")
def started(stack):
    return stack.relay("jobs", include=WORKFLOWS)


@pytest.fixture
def relay(redis_broker, started):
    """A relay that listens and sleeps; it also consumes what it publishes."""
    if not started.is_alive():
        started.start()
    eventually(is_asleep, "a sleeping relay")
    return started


def test_a_commit_wakes_the_sleeping_relay(relay):
    taken = []
    for _ in range(5):
        eventually(is_asleep, "a sleeping relay")
        time.sleep(0.3)  # past its initial frequent polling: from here on only a notification is fast
        committed = time.monotonic()
        message_id = publish()
        eventually(lambda message_id=message_id: has_run(message_id), "the task")
        taken.append(time.monotonic() - committed)
    assert sorted(taken)[2] < 0.15


@pytest.mark.slow
def test_the_relay_listens_again_after_it_lost_its_session(relay):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    eventually(lambda: relay.has_logged("relay.interrupted"), "the loss")
    message_id = publish()
    eventually(lambda: has_run(message_id), "the task", within=5)
    eventually(is_asleep, "a sleeping relay", within=5)
    assert relay.is_alive()


@pytest.mark.slow
def test_an_idle_relay_writes_nothing(relay):
    def written():
        with connection.cursor() as cursor:
            cursor.execute("SELECT ctid::text, xmin::text FROM outbox_relaystate")
            return cursor.fetchall()

    before = written()
    time.sleep(2.5)
    assert written() == before


@pytest.mark.slow
def test_polling_alone_delivers_when_the_listening_relay_has_stopped(
    relay, redis_broker, short_lived, tmp_path
):
    assert relay.stop() < 5
    assert not is_asleep()  # no notification is sent in vain

    folder = tmp_path / "beat"
    folder.mkdir()
    beat = short_lived.beat(folder=folder)
    deaf = short_lived.relay("jobs", include=f"{WORKFLOWS},tests.chaos.deaf")
    message_id = publish()

    eventually(lambda: has_run(message_id), "the task")
    assert not is_asleep()
    deaf.kill()
    beat.kill()
    assert list(folder.iterdir()) == []  # no schedule that a kill could have left half-written
    redis_broker.purge()
    beat.start()
    eventually(lambda: redis_broker.waiting("relay"), "the next tick", within=10)


@pytest.mark.slow
def test_messages_given_up_by_rabbitmq_reach_the_dead_letter_table(amqp_broker, short_lived, monkeypatch):
    if amqp_broker is None:
        pytest.skip(NO_RABBITMQ)
    declare_as_for_rabbitmq("orders", amqp_broker, monkeypatch)
    worker = short_lived.relay("jobs", include=WORKFLOWS, BROKER_URL=amqp_broker.url)
    worker.wait_until_ready()
    message_id = publish()
    eventually(lambda: has_run(message_id), "the task")  # and with it the declaration of queues

    poison = amqp_broker.send_task("orders.tasks.charge", headers={"workflow": "orders"})
    for _ in range(celeryconfig.DELIVERY_LIMIT + 1):
        die_with_a_message(amqp_broker.url)
    past = {"x-death": [{"reason": "expired", "queue": "jobs"}]}
    amqp_broker.send_task("outbox.tasks.drain", queue="jobs.dead", headers=past)

    [dead_letter] = eventually(lambda: list(DeadLetter.objects.all()), "the dead letter")
    assert (dead_letter.source, dead_letter.consumer) == (DeadLetter.Source.BROKER, "orders.tasks.charge")
    assert (str(dead_letter.message_id), dead_letter.workflow) == (poison, "orders")
    assert "delivery_limit" in dead_letter.error
    eventually(lambda: amqp_broker.waiting("jobs.dead") == 0, "an empty dead letter queue")


def declare_as_for_rabbitmq(name, broker, monkeypatch):
    """Declare a queue without a consumer in the test, as its worker would."""
    monkeypatch.setattr(celeryconfig, "_is_redis", False)
    monkeypatch.setattr(celeryconfig, "task_default_exchange_type", "topic")
    with broker.link.channel() as channel:
        celeryconfig._queue(name)(channel).declare()


def die_with_a_message(url):
    """Take a message like a worker that is lost before it can count anything."""
    with kombu.Connection(url) as link, link.channel() as channel:
        eventually(lambda: channel.basic_get("orders"), "the message comes back")
