"""Sixteen concurrent writers, with and without the wake-up of a relay that runs beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from django.db import connection

from benchmarks import measure, processes, systems, tables
from benchmarks.harness import Contestant, Result, Sample, alternate
from benchmarks.scenarios import Options, Say
from benchmarks.systems import RELAY
from outbox.models import OutboxMessage

WRITERS = 16
TABLE = OutboxMessage._meta.db_table


def run(options: Options, say: Say) -> Result:
    """Compare; with the wake-up off the relay finds its work by polling."""
    orders = options.scaled(3_000, 160)
    contestants = [
        Contestant(name="wake-up off", run=lambda: commits(orders, wakes=False)),
        Contestant(name="wake-up on", run=lambda: commits(orders, wakes=True), baseline="wake-up off"),
    ]
    result = Result(scenario="writers", unit="commits/s")
    result.rows = alternate(contestants, rounds=options.rounds, say=say)
    result.judge("within 10 % of the wake-up off", result.row("wake-up on").ratio or 0.0, least=0.9)
    return result


def commits(orders: int, *, wakes: bool) -> Sample:
    """Place orders in sixteen processes while one relay runs."""
    tables.clean()
    with processes.running([RELAY]) as groups, wake_up(on=wakes):
        meter = measure.Meter(systems.servers_and(groups))
        report = systems.place("orderflow", orders, writers=WRITERS)
        cpu, _ = meter.read()
    milliseconds = 1000 * report["median_seconds"]
    return Sample(
        value=orders / report["seconds"],
        units=orders,
        cpu={"writers": report["cpu"], **cpu},
        counts={"ms median": milliseconds},
    )


@contextlib.contextmanager
def wake_up(*, on: bool) -> Iterator[None]:
    """Switch the trigger that wakes the relay off during the block, or leave it on."""
    if on:
        yield
        return
    _execute(f"ALTER TABLE {TABLE} DISABLE TRIGGER outbox_wake_relay")
    try:
        yield
    finally:
        _execute(f"ALTER TABLE {TABLE} ENABLE TRIGGER outbox_wake_relay")


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
