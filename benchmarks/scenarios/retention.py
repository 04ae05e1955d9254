"""Pruning three times as many messages as are written, while the relay drains the written ones."""

from __future__ import annotations

import contextlib
import time

from django.conf import settings
from django.db import connection

from benchmarks import measure, processes, systems, tables
from benchmarks.harness import Contestant, Incorrect, Result, Sample, alternate, percentile
from benchmarks.processes import Spec
from benchmarks.scenarios import Options, Say
from benchmarks.systems import RELAY
from outbox.models import OutboxMessage

INTAKE = 100
"""Messages per second."""
TICK = 0.1
PRUNING = Spec(name="pruner", command=["-m", "benchmarks.load.pruner"], ready="pruning")


def run(options: Options, say: Say) -> Result:
    """Compare the time from a message's writing to its delivery."""
    seconds = options.scaled(30, 3)
    result = Result(scenario="retention", unit="ms from writing to delivery, p99")
    result.rows = alternate(
        [
            Contestant(name="draining", run=lambda: delivered(seconds, prunes=False)),
            Contestant(
                name="draining and pruning", run=lambda: delivered(seconds, prunes=True), baseline="draining"
            ),
        ],
        rounds=options.rounds,
        say=say,
    )
    ratio = result.row("draining and pruning").ratio or 0.0
    result.judge("p99 unchanged within 20 %, ratio", ratio, most=1.2)
    return result


def delivered(seconds: int, *, prunes: bool) -> Sample:
    """
    Write `INTAKE` messages per second, and with `prunes` three times as many for the pruner.

    Raises:
        Incorrect: if a message was not delivered, or the pruner kept or deleted the wrong ones.
    """
    tables.clean()
    written = old = 0
    with contextlib.ExitStack() as stack:
        groups = stack.enter_context(processes.running([RELAY, *([PRUNING] if prunes else [])]))
        time.sleep(1)  # the relay falls asleep
        meter = measure.Meter(systems.servers_and(groups))
        began = time.monotonic()
        for tick in range(1, round(seconds / TICK) + 1):
            tables.write_messages(round(INTAKE * TICK))
            written += round(INTAKE * TICK)
            if prunes:
                tables.write_messages(
                    round(3 * INTAKE * TICK), published=True, days_ago=settings.OUTBOX_RETENTION_DAYS + 1
                )
                old += round(3 * INTAKE * TICK)
            time.sleep(max(0.0, began + tick * TICK - time.monotonic()))
        published = OutboxMessage.objects.filter(status=OutboxMessage.Status.PUBLISHED)
        processes.until(
            lambda: published.count() == written, within=30, what="all delivered, all old ones gone"
        )
        cpu, _ = meter.read()
    times = _times()
    if len(times) != written:
        raise Incorrect(f"{written} messages were written, {len(times)} delivered")
    return Sample(
        value=percentile(times, 0.99),
        units=written,
        cpu=cpu,
        counts={"ms median": percentile(times, 0.5), "pruned": old / written},
    )


def _times() -> list[float]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1000 * extract(epoch FROM published_at - created_at)::float FROM outbox_outboxmessage"
        )
        return [took for (took,) in cursor.fetchall()]
