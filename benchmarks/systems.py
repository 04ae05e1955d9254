"""The compared systems: their processes, how their orders are placed, and when they are done."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from django.db import connection
from django.db.models import F

from benchmarks import ledger, measure, processes, tables
from benchmarks.harness import Incorrect
from benchmarks.processes import Spec
from notifications.models import Notification
from orderflow.stack.processes import EARLY_POOLS, LATER_POOLS
from orders.models import Order, OrderLine, OrderTransition, Payment, Product, Shipment

POOL = 2
"""Processes for steps, in every system; the default of `run.py` and of Celery on two processors."""

ALL = 3
"""OrderFlow's processes for steps and e-mails together; the others get as many when calls take time."""

STEPS = [Order.Status.PLACED, Order.Status.VALIDATED, Order.Status.CHARGED, Order.Status.FULFILLED]


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
    """One system under test. `writer` is how `benchmarks.writers` places its orders."""

    name: str
    writer: str
    specs: tuple[Spec, ...]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @contextmanager
    def up(self, **environment: str) -> Iterator[dict[str, list[int]]]:
        """Run it on empty tables, warmed up; yields the groups of its processes."""
        tables.clean()
        extra = {**self.environment, **environment}
        specs = [
            dataclasses.replace(
                spec, environment={**spec.environment, **extra}, name=f"{self.name}-{spec.name}"
            )
            for spec in self.specs
        ]
        with processes.running(specs) as groups:
            place(self.writer, 2 * POOL)
            wait_until_done(2 * POOL)
            yield {name.removeprefix(f"{self.name}-"): pids for name, pids in groups.items()}


def celery(app: str, name: str, *options: str, ready: str = " ready.", **environment: str) -> Spec:
    """A Celery process, by its command-line arguments."""
    return Spec(
        name=name,
        command=["-m", "celery", "-A", app, *options, "-l", "INFO"],
        ready=ready,
        environment=environment,
    )


def _own_worker(queue: str, pool: tuple[str, ...]) -> Spec:
    options = ("worker", "-n", f"{queue}@bench", "-Q", queue, *pool, "--without-gossip", "--without-mingle")
    return celery("orderflow", queue, *options, ORDERFLOW_POOL=queue)


RELAY = _own_worker("relay", EARLY_POOLS["relay"])
EMAIL = _own_worker("email", LATER_POOLS["email"])
BEAT = celery("orderflow", "beat", "beat", ready="beat: Starting")

OURS = System(
    name="orderflow",
    writer="orderflow",
    specs=(_own_worker("orders", EARLY_POOLS["orders"]), RELAY, EMAIL, BEAT),
)


NAIVE = {"BENCHMARK_NAIVE": "1"}


def naive(*, pool: int = POOL) -> System:
    """The naive system at Celery's default settings."""
    worker = celery("benchmarks.naive", "worker", "worker", "-c", str(pool))
    return System(name="naive", writer="naive", specs=(worker,), environment=NAIVE)


def tuned(*, pool: int = POOL) -> System:
    """The naive system with kept sessions, and the fastest pool: solo workers, one per processor."""
    options = ("-P", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat")
    workers = [
        celery("benchmarks.naive", f"worker{number}", "worker", "-n", f"naive{number}@bench", *options)
        for number in range(pool)
    ]
    environment = {**NAIVE, "BENCHMARK_TUNED": "1"}
    return System(name="tuned", writer="naive", specs=tuple(workers), environment=environment)


def place(
    writer: str,
    orders: int,
    *,
    writers: int = 1,
    rate: float = 0.0,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Place orders in separate processes; return the report of `benchmarks.writers`."""
    command = [sys.executable, "-m", "benchmarks.writers", writer, str(orders), str(writers), str(rate)]
    done = subprocess.run(
        command,
        cwd=processes.ROOT,
        env={**os.environ, **({} if writer == "orderflow" else NAIVE), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Incorrect(f"placing orders failed: {done.stderr[-3000:]}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def wait_until_done(orders: int, *, within: float = 600.0) -> None:
    """
    Wait until this many orders are fulfilled and their notifications sent.

    Raises:
        TimeoutError: if they are not in time.
    """
    processes.until(
        lambda: Notification.objects.filter(status=Notification.Status.SENT).count() >= orders,
        within=within,
        what=f"{orders} orders fulfilled and notified; {_where_they_stand()}",
    )


def _where_they_stand() -> str:
    return str(collections.Counter(Order.objects.values_list("status", flat=True)))


def last_sent_at() -> float:
    """When the last notification was sent, in Unix seconds, by the database's clock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM max(sent_at)) FROM notifications_notification")
        return float(cursor.fetchone()[0])


def now() -> float:
    """The current time of the database's clock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
        return float(cursor.fetchone()[0])


def check(orders: int) -> None:
    """
    Compare the tables and the providers' ledger with what is expected.

    Raises:
        Incorrect: if anything is missing, or happened twice.
    """
    problems = []
    counts = {
        "orders fulfilled": Order.objects.filter(status=Order.Status.FULFILLED).count(),
        "payments captured": Payment.objects.filter(status=Payment.Status.SUCCEEDED).count(),
        "parcels shipped": Shipment.objects.filter(status=Shipment.Status.SHIPPED).count(),
        "notifications sent": Notification.objects.filter(status=Notification.Status.SENT).count(),
        "notifications": Notification.objects.count(),
    }
    counts |= {
        f"moves to {status}": OrderTransition.objects.filter(to_status=status).count() for status in STEPS
    }
    problems += [f"{what}: {count}" for what, count in counts.items() if count != orders]
    for kind in ("charge", "ship", "mail"):
        check_ledger(kind, orders)
    shipped = sum(Product.objects.values_list("shipped", flat=True))
    lines = sum(OrderLine.objects.values_list("quantity", flat=True))
    if shipped != lines or Product.objects.exclude(reserved=0).exists():
        problems.append(f"{lines} items were ordered, {shipped} shipped")
    if Product.objects.exclude(received=F("on_hand") + F("reserved") + F("shipped")).exists():
        problems.append("stock does not add up")
    if problems:
        raise Incorrect(f"of {orders} orders: " + "; ".join(problems))


def check_ledger(kind: str, orders: int) -> None:
    """
    Compare a provider's ledger with what is expected: one call for each order.

    Raises:
        Incorrect: if they differ.
    """
    calls = collections.Counter(line.key for line in ledger.read(kind))
    twice = [f"{key} {count} times" for key, count in calls.items() if count > 1]
    if twice or len(calls) != orders:
        raise Incorrect(f"{kind}: {len(calls)} calls for {orders} orders; {', '.join(twice[:5])}")


def servers_and(groups: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """The groups of a system and those of the servers, for a meter."""
    return {**groups, **measure.servers()}


def wait_a_moment() -> None:
    """Wait for the counters of the database: sessions report at most once per second."""
    time.sleep(1.1)
