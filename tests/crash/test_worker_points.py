"""Crash points in a worker's own process: between storing a dead letter and acknowledging its message."""

from __future__ import annotations

import threading
import uuid

import kombu
import pytest
from celery import Celery, current_app
from django.db import connections

from outbox.broker import queues
from outbox.models import DeadLetter
from outbox.worker import dead_letter_queues
from tests import processes, rabbitmq_hosts
from tests.chaos.conftest import AMQP_URL, NO_RABBITMQ
from tests.crash.conftest import DIED, die_at, restore_unacknowledged

pytestmark = pytest.mark.processes


def send(link, queue, *, exchange="", **headers):
    with link.Producer() as producer:
        producer.publish(
            [[], {"order_id": "order-1"}, {}],
            routing_key=queue,
            exchange=exchange,
            serializer="json",
            headers={
                "task": "orders.tasks.teleport",
                "id": str(uuid.uuid4()),
                "message_id": str(uuid.uuid4()),
                **headers,
            },
        )


@pytest.mark.slow
def test_a_worker_that_dies_after_storing_a_dead_letter_leaves_exactly_one(drain, tmp_path):
    with current_app.connection_for_write() as link, processes.stack(tmp_path) as stack:
        queue = current_app.amqp.queues["orders"](link.default_channel)
        queue.declare()
        send(link, "orders")
        settings = {
            "pool": "solo",
            "include": "tests.crash.dying",
            "ORDERFLOW_POOL": "default",
            "DIE_WITH": str(DIED),
        }
        dying = stack.worker("orders", "orders", DIE_AT="worker.dead_letter_kept", **settings)
        processes.eventually(lambda: not dying.is_alive(), "the worker's death")
        assert (dying.exit_code, DeadLetter.objects.count()) == (DIED, 1)

        restore_unacknowledged()
        stack.worker("orders", "orders", DIE_AT="nowhere", **settings)
        unacknowledged = link.default_channel.unacked_key
        client = link.default_channel.client
        processes.eventually(
            lambda: not client.llen("orders") and not client.hlen(unacknowledged), "an empty queue"
        )
        assert DeadLetter.objects.get().error_class == "NotRegistered"


@pytest.fixture
def broker_with_dead_letters():
    """An app on RabbitMQ whose queue `crash` has given a message up."""
    if not rabbitmq_hosts.answers(AMQP_URL):
        pytest.skip(NO_RABBITMQ)
    name = f"crash-{uuid.uuid4()}"
    arguments = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": f"{name}.dead",
    }
    app = Celery("crash", broker=AMQP_URL, set_as_current=False)
    app.conf.update(task_queues=[kombu.Queue(name, kombu.Exchange(name), name, queue_arguments=arguments)])
    [dead] = queues.dead_queues(app, [name])
    with app.connection_for_write() as link:
        bound = dead(link.default_channel)
        bound.declare()
        send(link, dead.name, **{"x-first-death-reason": "delivery_limit", "x-delivery-count": 5})
        yield app, bound
        bound.delete()
    app.close()


@pytest.mark.slow
def test_a_relay_that_dies_over_the_brokers_dead_letter_keeps_one(transactional_db, broker_with_dead_letters):
    app, queue = broker_with_dead_letters

    def empty(stopping):
        dead_letter_queues.bury_undeliverable(app, stopping)
        connections.close_all()

    def waiting():
        return queue.queue_declare(passive=True).message_count

    assert die_at("broker.dead_letter_kept", lambda: empty(threading.Event()))
    processes.eventually(waiting, "the message that the dead relay held")

    stopping = threading.Event()
    emptying = threading.Thread(target=empty, args=[stopping])
    emptying.start()
    processes.eventually(lambda: not waiting(), "an empty queue")
    stopping.set()
    emptying.join()
    assert not waiting()
    assert DeadLetter.objects.get().source == DeadLetter.Source.BROKER
