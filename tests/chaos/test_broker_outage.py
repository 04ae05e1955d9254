"""A broker that goes away and comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from urllib.parse import urlsplit, urlunsplit

import pytest

from outbox import relay
from outbox.models import InboxEntry
from tests.chaos.conftest import AMQP_URL, ROOT, Broker, answers, free_port, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.django_db]

FINISH = "tests.chaos.tasks.finish"


@pytest.fixture
def own_redis(tmp_path):
    """Starts a Redis of this test's own, again and again on the same port."""
    port, running = free_port(), []

    def start():
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        running.append(
            subprocess.Popen(["redis-server", *options, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL)
        )
        wait_for(lambda: answers(url), what="Redis")
        return running[-1]

    url = f"redis://127.0.0.1:{port}/0"
    start.url = url
    yield start
    for process in running:
        process.kill()
        process.wait()


def test_a_worker_is_back_within_three_seconds_of_its_broker(own_redis, start):
    server = own_redis()
    worker = start("worker", "-Q", "orders", "-c", "1", "-I", "tests.chaos.tasks", broker=own_redis.url)
    worker.wait_until_ready()

    server.kill()
    server.wait()
    wait_for(lambda: worker.times_said("Cannot connect to") >= 6, what="waits that have grown")
    own_redis()
    returned = time.monotonic()
    broker = Broker(own_redis.url)
    message_id = broker.send_task(FINISH)

    wait_for(lambda: InboxEntry.objects.filter(message_id=message_id).exists(), what="the task")
    assert time.monotonic() - returned < 3
    broker.close()


PUBLISH_TWICE = """
import os, signal, time, django; django.setup()
from orderflow.celery import app
from outbox import relay
from outbox.models import OutboxMessage
from tests.chaos import workflows
from tests.outbox.events import Happened
message = OutboxMessage(key="a", correlation_id="b").message(Happened())
relay.send(workflows.finishing(message), message, workflow="w", app=app)
os.kill(int(os.environ["FORWARDER"]), signal.SIGSTOP)
for attempt in ("over the connection it has", "over a new one"):
    began = time.monotonic()
    try:
        relay.send(workflows.finishing(message), message, workflow="w", app=app)
    except relay.BrokerDown:
        print(time.monotonic() - began)
"""


@pytest.fixture(scope="module", autouse=True)
def silenced(redis_broker, amqp_broker):
    """Programs that publish over a network which freezes; they take their time beside the other tests."""
    running = {}
    for broker in filter(None, (redis_broker, amqp_broker)):
        known, port = urlsplit(broker.url), free_port()
        target = [str(port), known.hostname, str(known.port or (6379 if broker.is_redis else 5672))]
        forwarder = subprocess.Popen([sys.executable, "-m", "tests.chaos.forwarder", *target], cwd=ROOT)
        who = known.netloc.rpartition("@")[0]
        url = urlunsplit(known._replace(netloc=f"{who}@127.0.0.1:{port}" if who else f"127.0.0.1:{port}"))
        wait_for(lambda url=url: answers(url), what="the forwarder")
        environment = {"FORWARDER": str(forwarder.pid), "BROKER_URL": url}
        publisher = subprocess.Popen(
            [sys.executable, "-c", PUBLISH_TWICE],
            cwd=ROOT,
            env=os.environ | environment | {"DJANGO_SETTINGS_MODULE": "orderflow.settings"},
            stdout=subprocess.PIPE,
            text=True,
        )
        running["redis" if broker.is_redis else "rabbitmq"] = publisher, forwarder
    yield {kind: publisher for kind, (publisher, _) in running.items()}
    for process in (process for pair in running.values() for process in pair):
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_the_relay_soon_gives_up_a_broker_that_has_fallen_silent(silenced, kind):
    if kind not in silenced:
        pytest.skip(f"no RabbitMQ answers at {AMQP_URL} (ORDERFLOW_TEST_AMQP_URL)")
    said, _ = silenced[kind].communicate(timeout=60)
    assert silenced[kind].returncode == 0
    over_the_old, over_a_new = (float(line) for line in said.split())
    assert over_the_old < relay.LEASE.total_seconds() / 2
    assert over_a_new < 5
