"""Two workers of one pool do more than one while their tasks wait, on both brokers."""

from __future__ import annotations

import time
import uuid

import pytest
from celery import Celery
from kombu import Exchange

from tests import processes, rabbitmq_hosts
from tests.chaos.conftest import AMQP_URL, NO_RABBITMQ
from tests.processes import RedisServer, eventually

TASKS = "tests.outbox.worker.waiting"
THREADS, MESSAGES = 8, 400

pytestmark = [pytest.mark.slow, pytest.mark.processes]


@pytest.fixture
def server(tmp_path):
    server = RedisServer(tmp_path, durable=False)
    yield server
    server.kill()


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_two_workers_of_a_pool_are_faster_than_one(transactional_db, server, tmp_path, broker):
    if broker == "rabbitmq" and not rabbitmq_hosts.answers(AMQP_URL):
        pytest.skip(NO_RABBITMQ)
    url = server.url if broker == "redis" else AMQP_URL
    settings = {"BROKER_URL": url, "COUNTER_URL": server.url, "ORDERFLOW_POOL": f"two-{uuid.uuid4()}"}
    with Celery("client", broker=url, set_as_current=False) as client, processes.stack(tmp_path) as stack:
        workers = [
            stack.worker(f"two{number}", "jobs", pool="threads", concurrency=THREADS, include=TASKS, **settings)
            for number in range(2)
        ]
        for worker in workers:
            worker.wait_until_ready()
        drain(client, server, kind=broker, messages=2 * THREADS)  # so that everything is loaded
        two = drain(client, server, kind=broker)
        workers[1].stop()
        one = drain(client, server, kind=broker)

    assert one / two > 1.2


def drain(client, server, *, kind, messages=MESSAGES):
    """Return how long the workers take for messages that are all there before the first one ends."""
    address = {
        "exchange": Exchange("jobs", type="direct" if kind == "redis" else "topic"),
        "routing_key": "jobs",
    }
    with server.client() as counter, client.connection_for_write() as link:
        counter.delete("tests.waited")
        began = time.monotonic()
        with client.amqp.Producer(link) as producer:
            for _ in range(messages):
                client.send_task(f"{TASKS}.wait", producer=producer, ignore_result=True, **address)
        eventually(lambda: int(counter.get("tests.waited") or 0) == messages, "all messages are worked off")
        return time.monotonic() - began
