"""Broker outages, and networks that cut connections or hang."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import subprocess
import sys
import time

import pytest
from django.utils import timezone

from outbox.models import InboxEntry
from tests.chaos import tasks
from tests.chaos.conftest import NO_RABBITMQ, TASKS, Broker, has_run
from tests.processes import ROOT, Network, Process, RedisServer, eventually

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.django_db]

FINISH, LINGER = f"{TASKS}.finish", f"{TASKS}.linger"
SOON = 15
"""Seconds for a publish over a hanging connection: a read times out, and it is tried again."""
PORTS = {"redis": 6379, "rabbitmq": 5672}


@pytest.fixture(scope="module")
def brokers(redis_broker, amqp_broker):
    kinds = {"redis": redis_broker, "rabbitmq": amqp_broker}
    return {kind: broker for kind, broker in kinds.items() if broker}


@pytest.fixture(params=["redis", "rabbitmq"])
def kind(request, brokers):
    if request.param not in brokers:
        pytest.skip(NO_RABBITMQ)
    return request.param


PUBLISH_TWICE = """
import os, signal, time, django; django.setup()
from orderflow.celery import app
from outbox.broker import dispatch
from outbox.models import OutboxMessage
from tests.chaos import workflows
from tests.outbox.events import Happened
message = OutboxMessage(key="a", correlation_id="b").message(Happened())
sending = dispatch.Sending(workflows.finishing(message), message.headers(workflow="w"))
dispatch.send_all([sending], app=app)
os.kill(int(os.environ["FORWARDER"]), signal.SIGSTOP)
for attempt in ("over the connection it has", "over a new one"):
    began = time.monotonic()
    try:
        dispatch.send_all([sending], app=app)
    except dispatch.BrokerDown:
        print(time.monotonic() - began)
"""


@pytest.fixture(scope="module")
def silenced(brokers):
    """Programs that publish over a network that hangs; they run concurrently with the other tests."""
    running, networks = {}, []
    for kind, broker in brokers.items():
        networks.append(network := Network(broker.url, port=PORTS[kind]))
        settings = {"FORWARDER": str(network.pid), "BROKER_URL": network.url}
        running[kind] = subprocess.Popen(
            [sys.executable, "-c", PUBLISH_TWICE],
            cwd=ROOT,
            env=os.environ | settings | {"DJANGO_SETTINGS_MODULE": "orderflow.settings"},
            stdout=subprocess.PIPE,
            text=True,
        )
    yield running
    for process in running.values():
        process.kill()
        process.wait()
    for network in networks:
        network.cut()


@dataclasses.dataclass
class Cut:
    """A worker behind a network that hangs while it holds a task."""

    broker: Broker
    network: Network
    worker: Process
    held: str = ""
    sent: str = ""
    silent_since: dt.datetime | None = None

    def fall_silent(self):
        self.worker.wait_until_ready()
        self.held = self.broker.send_task(LINGER)
        eventually(lambda: has_run(self.held, witness=tasks.BEGUN), "the task has begun")
        self.network.leave_half_open()
        self.silent_since = timezone.now()
        self.sent = self.broker.send_task(FINISH)


@pytest.fixture(scope="module")
def half_open(brokers, silenced, stack):
    """One worker on each broker whose connection hangs; they run concurrently, too."""
    cuts = {}
    for kind, broker in brokers.items():
        network = Network(broker.url, port=PORTS[kind])
        worker = stack.worker(
            f"cut-{kind}",
            "orders",
            include=f"{TASKS},tests.chaos.impatient",
            BROKER_URL=network.url,
            VISIBILITY_TIMEOUT="5",
            HEARTBEAT="3",
        )
        cuts[kind] = Cut(broker, network, worker)
    for cut in cuts.values():
        cut.fall_silent()
    yield cuts
    for cut in cuts.values():
        cut.network.cut()


def test_a_worker_is_back_within_three_seconds_of_its_broker(half_open, stack, tmp_path):
    server = RedisServer(tmp_path, durable=False)
    worker = stack.worker("outage", "orders", include=TASKS, BROKER_URL=server.url)
    worker.wait_until_ready()

    server.kill()
    eventually(lambda: worker.has_logged("Cannot connect to", times=5), "waits that have grown")
    server.start()
    returned = time.monotonic()
    broker = Broker(server.url)
    message_id = broker.send_task(FINISH)

    eventually(lambda: has_run(message_id), "the task")
    assert time.monotonic() - returned < 3
    broker.close()
    worker.kill()
    server.kill()


def test_the_relay_soon_gives_up_a_broker_that_hangs(half_open, silenced, kind):
    printed, _ = silenced[kind].communicate(timeout=60)
    assert silenced[kind].returncode == 0
    over_the_old, over_a_new = (float(line) for line in printed.split())
    assert over_the_old < SOON
    assert over_a_new < 5


def test_a_worker_notices_a_connection_that_hangs_half_open(half_open, kind):
    cut = half_open[kind]
    eventually(lambda: has_run(cut.sent) and has_run(cut.held), "both tasks")
    taken_at = InboxEntry.objects.get(consumer=tasks.FINISHED, message_id=cut.sent).taken_at
    assert taken_at - cut.silent_since < dt.timedelta(seconds=30)
    assert cut.worker.is_alive()


def test_a_worker_survives_a_connection_that_is_cut(half_open, kind):
    cut = half_open[kind]
    eventually(lambda: has_run(cut.sent), "a connection that works")
    held = cut.broker.send_task(LINGER)
    eventually(lambda: has_run(held, witness=tasks.BEGUN), "the task has begun")
    cut.network.cut()
    eventually(lambda: cut.worker.has_logged("Connection to broker lost"), "the loss")
    cut.network.open()

    eventually(lambda: has_run(held), "the task, delivered again", within=15)
    assert cut.worker.is_alive()


def test_a_child_that_dies_before_its_worker_first_connects_is_replaced(kind, brokers, short_lived):
    network = Network(brokers[kind].url, port=PORTS[kind])
    network.cut()
    worker = short_lived.worker("early", "push", concurrency=2, include=TASKS, BROKER_URL=network.url)
    eventually(lambda: worker.has_logged("Cannot connect") and len(worker.children()) == 2, worker.output)
    worker.kill_children()
    eventually(lambda: not any(child.status() != "zombie" for child in worker.children()), "they are gone")
    network.open()

    worker.wait_until_ready()
    done = [brokers[kind].send_task(FINISH, queue="push") for _ in range(4)]
    eventually(lambda: all(map(has_run, done)), worker.output)
    assert worker.is_alive()
    assert len(worker.children()) == 2
    network.cut()
