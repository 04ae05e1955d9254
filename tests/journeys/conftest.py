"""Journeys run with shared real worker processes, and with a broker and a network that may fail."""

from __future__ import annotations

import datetime as dt
import types

import kombu
import pytest

from outbox import testing
from outbox.models import OutboxMessage, QueueProbe
from outbox.relay import probes
from tests import processes
from tests.processes import Network, RedisServer, eventually

UNACKED, UNACKED_SINCE = "unacked-orders", "unacked-index-orders"


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A separate Redis for the journeys, which keeps nothing over a restart."""
    server = RedisServer(tmp_path_factory.mktemp("broker"), durable=False)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def shared(broker, tmp_path_factory):
    """The stack of the processes that all journeys share; `staff` starts them."""
    with processes.stack(tmp_path_factory.mktemp("shared")) as started:
        yield (shared := types.SimpleNamespace(stack=started, orders=None, relay=None, database=None))
    if shared.database:
        shared.database.cut()


@pytest.fixture
def staff(transactional_db, world, broker, shared):
    """A relay, a beat, and a worker for orders that reaches the database through `staff.database`."""
    if shared.orders is None:
        shared.database = Network(processes.environment()["DATABASE_URL"], port=5432)
        shared.relay = shared.stack.relay(BROKER_URL=broker.url)
        shared.stack.beat(BROKER_URL=broker.url)
        shared.orders = shared.stack.worker(
            "orders", "orders", concurrency=3, BROKER_URL=broker.url, DATABASE_URL=shared.database.url
        )
    elif not shared.orders.is_alive():
        shared.orders.start()
    shared.orders.wait_until_ready()
    yield shared
    shared.orders.thaw()  # also after a failed journey
    with broker.client() as link:
        try:
            assert shared.orders.is_alive(), shared.orders.output()[-5000:]
            end_patience(link)
            wait_until_nothing_waits(shared, link)
            take_a_probe(broker.url)
            wait_until_nothing_waits(shared, link)
        finally:
            forget_messages(link)


@pytest.fixture
def stack(tmp_path, staff, broker):
    """Start further processes for one journey; see `tests.processes.Stack`."""
    with processes.stack(tmp_path) as started:
        yield started


@pytest.fixture
def pass_time(broker):
    """Let a minute pass for the database and for the broker's acknowledgement timeout."""

    def pass_time(span=dt.timedelta(minutes=1)):
        testing.pass_time(span)
        with broker.client() as link:
            end_patience(link)

    return pass_time


def wait_until_nothing_waits(shared, link):
    def nothing_waits():
        waiting = link.hlen(UNACKED) or link.llen("orders") or OutboxMessage.objects.undelivered().exists()
        return not waiting

    def explanation():
        return f"all is acknowledged; the output of the worker: {shared.orders.output()[-5000:]}"

    eventually(nothing_waits, explanation, within=30)


def take_a_probe(url):
    """
    Wait until the worker has taken what is sent now.

    Redis hands a message out a moment before the worker notes that it has it. What was in its hands without
    a note is noted when it takes the next one.
    """
    probe = QueueProbe.objects.create(queue="orders")
    with kombu.Connection(url) as link:
        probes.sending("orders", probe.pk).canvas.apply_async(connection=link)
    outstanding = QueueProbe.objects.filter(pk=probe.pk, returned_at__isnull=True)
    eventually(lambda: not outstanding.exists(), "the probe has come back", within=30)


def end_patience(link):
    """Expire the broker's acknowledgement timeouts; a worker checks for such messages every second."""
    for tag in link.zrange(UNACKED_SINCE, 0, -1):
        link.zadd(UNACKED_SINCE, {tag: 0}, xx=True)


def forget_messages(link):
    """Empty the queues without a consumer; declarations stay."""
    if names := [name for name in link.scan_iter() if not name.startswith(b"_kombu")]:
        link.delete(*names)
