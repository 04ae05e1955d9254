"""Workers with threads: many waiting calls share few database sessions, and outlive what happens to these."""

from __future__ import annotations

import contextlib
import time

import psutil
import pytest
from django.db import connection

from orders.models import Order
from outbox.models import Attempt, DeadLetter
from tests import processes
from tests.factories import ProductFactory, place
from tests.notifications.publishing import ONLY_EMAIL, ONLY_PUSH, ONLY_SMS, publish
from tests.processes import Network, eventually

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(180)]

CALLS, MOST = 64, 8
SLOW = 4
"""Seconds, less than the timeout of calls."""


@pytest.fixture
def stack(transactional_db, purge, world, tmp_path):
    purge()
    with processes.stack(tmp_path) as started:
        yield started
    purge()


def sessions_of(worker) -> int:
    """Count the database sessions that a process has open, by its connections."""
    server = int(connection.settings_dict["PORT"] or 5432)
    return sum(
        1
        for link in psutil.Process(worker.pid).net_connections("tcp")
        if link.raddr and link.raddr.port == server and link.status == psutil.CONN_ESTABLISHED
    )


def struck(provider) -> int:
    return sum(fault["struck"] for fault in provider.faults())


def are_all(orders, status) -> bool:
    return Order.objects.filter(pk__in=[order.pk for order in orders], status=status).count() == len(orders)


def place_many(number):
    product = ProductFactory()
    return [place(product) for _ in range(number)]


def test_64_waiting_calls_need_at_most_eight_sessions(stack, world):
    world.payments.control(fault="slow", latency_ms=500)
    world.warehouse.control(fault="slow", latency_ms=300)
    worker = stack.worker("orders", "orders", pool="threads", concurrency=CALLS)
    worker.wait_until_ready()
    orders = place_many(3 * CALLS)
    stack.relay()
    seen = []

    def are_done():
        seen.append(sessions_of(worker))
        return are_all(orders, Order.Status.FULFILLED)

    eventually(are_done, worker.output)

    assert 2 <= max(seen) <= MOST + 1, "one of them is the main loop's"
    assert not worker.has_logged("step.database_down")
    assert not worker.has_logged("provider.called_in_transaction")
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("provider", ["payments", "warehouse", "smtp", "sms", "push"])
def test_a_call_of_any_provider_is_made_without_a_session(stack, world, provider):
    """With one session for all, several calls can be under way only if none of them has it."""
    calls, server = 6, getattr(world, provider)
    only = {"match": "messages:send"} if provider == "push" else {}  # not the request for a token before it
    server.control(fault="slow", latency_ms=SLOW * 1_000, **only)
    queues = ("orders", "email", "sms", "push")
    worker = stack.worker("all", *queues, pool="threads", concurrency=2 * calls, DATABASE_POOL_SIZE="1")
    worker.wait_until_ready()
    if provider in ("payments", "warehouse"):
        place_many(calls)
    else:
        to = {"smtp": ONLY_EMAIL, "sms": ONLY_SMS, "push": ONLY_PUSH}[provider]
        for _ in range(calls):
            publish(**to)
    stack.relay()

    eventually(lambda: struck(server), worker.output)
    first = time.monotonic()
    eventually(lambda: struck(server) >= calls, worker.output)
    assert time.monotonic() - first < SLOW, "no call had ended when the last one began"
    assert not worker.has_logged("step.database_down")


def test_an_outage_of_the_database_costs_nothing_but_time(stack, world):
    """All sessions of the pool are lost, at once and again and again, while calls are under way."""
    world.payments.control(fault="slow", latency_ms=300)
    network = Network(processes.environment()["DATABASE_URL"], port=5432)
    worker = stack.worker("orders", "orders", pool="threads", concurrency=CALLS, DATABASE_URL=network.url)
    worker.wait_until_ready()
    orders = place_many(2 * CALLS)
    stack.relay()
    stack.beat()
    eventually(lambda: struck(world.payments) >= CALLS, worker.output)
    network.cut()
    eventually(lambda: worker.has_logged("step.database_down"), "a task has noticed")
    network.open()
    opened = time.monotonic()

    eventually(lambda: Order.objects.filter(status=Order.Status.FULFILLED).exists(), worker.output)
    first = time.monotonic() - opened
    eventually(lambda: are_all(orders, Order.Status.FULFILLED), worker.output)
    network.cut()
    assert first < 20, "the pool opens sessions again as soon as there are any"
    assert not DeadLetter.objects.exists()
    assert set(Attempt.objects.values_list("outcome", flat=True)) <= {Attempt.Outcome.WAITED}
    assert world.payments.count() == len(orders), "each was charged once"


def test_a_server_without_a_session_to_spare_lets_tasks_wait(stack, world):
    world.payments.control(fault="slow", latency_ms=300)
    worker = stack.worker("orders", "orders", pool="threads", concurrency=CALLS)
    worker.wait_until_ready()
    stack.relay()
    first = place_many(1)
    eventually(lambda: are_all(first, Order.Status.FULFILLED), worker.output)
    with at_most_now(connection.settings_dict["NAME"]):
        orders = place_many(CALLS)
        eventually(lambda: are_all(orders, Order.Status.FULFILLED), worker.output)

    assert worker.has_logged("too many connections for database"), "there was nothing to wait for"
    assert not DeadLetter.objects.exists()
    assert not Attempt.objects.exclude(outcome=Attempt.Outcome.WAITED).exists()


@contextlib.contextmanager
def at_most_now(database):
    """Let the server refuse more sessions than there are now."""

    def limit(number):
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{database}" CONNECTION LIMIT {number}')

    with connection.cursor() as cursor:
        cursor.execute("SELECT numbackends FROM pg_stat_database WHERE datname = current_database()")
        limit(cursor.fetchone()[0])
    try:
        yield
    finally:
        limit(-1)
