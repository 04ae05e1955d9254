"""Minutes at 70 % of the capacity measured before: nothing may grow."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from django.db import connection

from benchmarks import measure, processes, systems
from benchmarks.harness import Contestant, Incorrect, Result, alternate
from benchmarks.scenarios import Options, Say
from benchmarks.scenarios.pipeline import throughput
from benchmarks.systems import OURS

SHARE = 0.7
EVERY = 5.0
"""Seconds between two samples."""
GROWTH = 1.1
"""The allowed ratio of the last quarter to the second; the first quarter is for warming up."""


def run(options: Options, say: Say) -> Result:
    """Measure the capacity, then run below it and take samples."""
    result = Result(scenario="soak", unit="orders/s")
    orders, minutes = options.scaled(1_000, 40), 0.2 if options.quick else options.minutes
    result.rows = alternate([Contestant(name="most", run=lambda: throughput(OURS, orders))], rounds=1, say=say)
    rate = SHARE * result.row("most").median
    samples = steady(rate, minutes, say)
    for what in ("memory MB", "sessions", "oldest due s", "orders on their way", "dead rows"):
        values = [look[what] for look in samples]
        quarter = max(1, len(values) // 4)
        level = min if what == "dead rows" else statistics.mean  # what a vacuum leaves; they come every minute
        before, after = level(values[quarter : 2 * quarter] or values), level(values[-quarter:])
        allowed = max(GROWTH * before, before + ALLOWANCE[what])
        result.judge(f"{what}: last quarter against {before:.1f} in the second", after, most=allowed)
    result.notes.append(f"{rate:.1f} orders/s for {minutes:g} minutes, {len(samples)} samples")
    return result


ALLOWANCE = {
    "memory MB": 15.0,
    "sessions": 1.0,
    "oldest due s": 2.0,
    "orders on their way": 30.0,
    "dead rows": 2_000.0,
}
"""Values below which a change does not count as growth."""


def steady(rate: float, minutes: float, say: Say) -> list[dict[str, float]]:
    """
    Place orders at a steady rate and sample everything that could grow.

    Raises:
        Incorrect: if an order is missing at the end, or anything happened twice.
    """
    orders = round(rate * minutes * 60)
    with OURS.up() as groups:
        began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.load.writers", OURS.writer, str(orders), "1", str(rate)]
        with subprocess.Popen(command, cwd=processes.ROOT, stdout=subprocess.DEVNULL) as writer:
            samples = []
            while writer.poll() is None:
                time.sleep(EVERY / 4 if minutes < 1 else EVERY)
                samples.append(look(groups))
                seen = ", ".join(f"{what} {value:.1f}" for what, value in samples[-1].items())
                say(f"{time.monotonic() - began:.0f} s: {seen}")
        if writer.returncode:
            raise Incorrect("the writer failed")
        warm = OURS.warm
        systems.wait_until_done(orders + warm)
        systems.check(orders + warm)
    return samples


def look(groups: dict[str, list[int]]) -> dict[str, float]:
    """Sample everything that could grow."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT
                (SELECT coalesce(extract(epoch FROM now() - min(not_before)), 0)::float
                 FROM outbox_outboxmessage WHERE status = 'pending' AND not_before <= now()),
                (SELECT count(*) FROM orders_order WHERE finished_at IS NULL),
                (SELECT sum(n_dead_tup) FROM pg_stat_user_tables)
            """
        )
        oldest, unfinished, dead = cursor.fetchone()
    return {
        "memory MB": sum(measure.memory_of(groups).values()) / 1e6,
        "sessions": measure.sessions(),
        "oldest due s": oldest,
        "orders on their way": unfinished,
        "dead rows": float(dead),
    }
