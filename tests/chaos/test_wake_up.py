"""How soon the relay starts what was committed, and what happens when its ear is deaf."""

from __future__ import annotations

import time

import pytest
from django.db import connection, transaction

from outbox import publisher
from outbox.models import DeadLetter, InboxEntry, RelayState
from tests.chaos import tasks
from tests.chaos.conftest import AMQP_URL, wait_for
from tests.outbox.events import Happened

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

WORKER = ("worker", "-P", "solo", "--without-gossip", "--without-mingle", "-I")
RELAY = (*WORKER, "tests.chaos.workflows", "-Q", "relay,jobs")
DEAF_RELAY = (*WORKER, "tests.chaos.workflows,tests.chaos.deaf", "-Q", "relay,jobs")


def is_asleep():
    return RelayState.objects.filter(sleeping=True).exists()


def publish():
    with transaction.atomic(durable=True):
        return publisher.publish(Happened())


def has_run(message_id):
    return InboxEntry.objects.filter(consumer=tasks.FINISHED, message_id=message_id).exists()


@pytest.fixture(scope="module")
def started():
    return []


@pytest.fixture
def relay(redis_broker, start, started):
    """A relay that listens and sleeps; it also works on what it publishes."""
    if not started or not started[-1].lives:
        started.append(start(*RELAY, broker=redis_broker.url))
        started[-1].wait_until_ready()
    wait_for(is_asleep, what="a sleeping relay")
    return started[-1]


def test_a_commit_wakes_the_sleeping_relay(relay):
    taken = []
    for _ in range(5):
        wait_for(is_asleep, what="a sleeping relay")
        time.sleep(0.3)  # past its first quick looks: from here on only a notification is quick
        committed = time.monotonic()
        message_id = publish()
        wait_for(lambda message_id=message_id: has_run(message_id), what="the task")
        taken.append(time.monotonic() - committed)
    assert sorted(taken)[2] < 0.15


def test_the_relay_listens_again_after_it_lost_its_session(relay):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    wait_for(lambda: relay.says("relay.interrupted"), what="the loss")
    message_id = publish()
    wait_for(lambda: has_run(message_id), what="the task", within=5)
    wait_for(is_asleep, what="a sleeping relay", within=5)
    assert relay.lives


def test_an_idle_relay_writes_nothing(relay):
    def written():
        with connection.cursor() as cursor:
            cursor.execute("SELECT ctid::text, xmin::text FROM outbox_relaystate")
            return cursor.fetchall()

    before = written()
    time.sleep(2.5)
    assert written() == before


def test_the_clock_alone_delivers_when_the_listening_relay_has_stopped(relay, redis_broker, start_briefly):
    assert relay.stop() < 5
    assert not is_asleep()  # nobody is notified in vain

    start_briefly("beat", broker=redis_broker.url)
    start_briefly(*DEAF_RELAY, broker=redis_broker.url)
    message_id = publish()

    wait_for(lambda: has_run(message_id), what="the task")
    assert not is_asleep()


def test_what_rabbitmq_gives_up_reaches_the_dead_letter_table(amqp_broker, start_briefly):
    if amqp_broker is None:
        pytest.skip(f"no RabbitMQ answers at {AMQP_URL} (ORDERFLOW_TEST_AMQP_URL)")
    worker = start_briefly(*RELAY, broker=amqp_broker.url)
    worker.wait_until_ready()
    message_id = publish()
    wait_for(lambda: has_run(message_id), what="the task")  # and with it the declaration of queues

    given_up = amqp_broker.send_task("orders.tasks.charge", queue="orders.dead", headers={"workflow": "orders"})
    past = {"x-death": [{"reason": "expired", "queue": "jobs"}]}
    amqp_broker.send_task("outbox.tasks.drain", queue="jobs.dead", headers=past)

    [letter] = wait_for(lambda: list(DeadLetter.objects.all()), what="the letter")
    assert (letter.source, letter.consumer) == (DeadLetter.Source.BROKER, "orders.tasks.charge")
    assert (str(letter.message_id), letter.workflow) == (given_up, "orders")
    wait_for(lambda: amqp_broker.waiting("jobs.dead") == 0, what="an empty dead letter queue")
