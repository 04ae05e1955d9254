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

from benchmarks import ledger, measure, pools, processes, tables
from benchmarks.harness import Incorrect
from benchmarks.pools import PREFORK, THREADS
from benchmarks.processes import Spec
from notifications.models import Notification
from orderflow.stack.processes import CELERY
from orders.models import Order, OrderLine, OrderTransition, Payment, Product, Shipment

POOL = 2
"""Processes of the naive systems: Celery's default on two processors."""

ALL = 3
"""Processes of the naive systems in the runs with calls of 50 ms."""

WARM = 2 * POOL
"""Orders before a measurement, so that connections and one-time work are not measured."""

STEPS = [Order.Status.PLACED, Order.Status.VALIDATED, Order.Status.CHARGED, Order.Status.FULFILLED]


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
    """One system under test. `writer` is how `benchmarks.load.writers` places its orders."""

    name: str
    writer: str
    specs: tuple[Spec, ...]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warm: int = WARM
    """Orders before a measurement; enough that every thread of a pool has had one."""

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
            place(self.writer, self.warm)
            wait_until_done(self.warm)
            yield {name.removeprefix(f"{self.name}-"): pids for name, pids in groups.items()}


def celery(app: str, name: str, *options: str, ready: str = " ready.", **environment: str) -> Spec:
    """A Celery process, by its command-line arguments."""
    return Spec(
        name=name,
        command=[*(CELERY if app == "orderflow" else ("-m", "celery")), "-A", app, *options, "-l", "INFO"],
        ready=ready,
        environment=environment,
    )


def own_worker(queue: str, *pool: str, number: str = "", **environment: str) -> Spec:
    """One of OrderFlow's workers, as `run.py` starts it, with these options for its pool."""
    name = f"{queue}{number}"
    options = ("worker", "-n", f"{name}@bench", "-Q", queue, *pool, "--without-gossip", "--without-mingle")
    return celery("orderflow", name, *options, ORDERFLOW_POOL=queue, **environment)


RELAY = own_worker("relay", "-P", "solo")
BEAT = celery("orderflow", "beat", "beat", ready="beat: Starting")


def ours(pool: str = THREADS, *, steps: int = 0, emails: int = 0, name: str = "orderflow") -> System:
    """OrderFlow with pools of threads or of processes, of the usual sizes or of these."""
    workers = [
        own_worker(queue, *options, number=str(number) if number > 1 else "")
        for queue, size in (("orders", steps), ("email", emails))
        for number, options in enumerate(
            [pools.options(pool, size)] if size else pools.workers(pool, queue), start=1
        )
    ]
    warm = WARM if pool == PREFORK else 2 * pools.slots(pool, "orders")
    return System(name=name, writer="orderflow", specs=(*workers, RELAY, BEAT), warm=warm)


OURS = ours()


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
    """Place orders in separate processes, whose sessions are not counted; return what the writers report."""
    command = [sys.executable, "-m", "benchmarks.load.writers", writer, str(orders), str(writers), str(rate)]
    done = subprocess.run(
        command,
        cwd=processes.ROOT,
        env={**os.environ, **measure.UNCOUNTED, **({} if writer == "orderflow" else NAIVE), **environment},
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
