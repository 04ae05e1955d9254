"""An idle system, a few orders per second: from the commit to the first step, and to the fulfilled order."""

from __future__ import annotations

import dataclasses

from benchmarks import ledger, systems
from benchmarks.harness import Contestant, Incorrect, Result, Sample, alternate, percentile
from benchmarks.scenarios import Options, Say
from benchmarks.systems import OURS, RELAY, System
from outbox import schedule

RATE = 5.0
"""Orders per second; far below the capacity of each system."""

DEAF = dataclasses.replace(
    OURS,
    name="beat alone",
    specs=tuple(
        dataclasses.replace(spec, command=[*spec.command, "-I", "benchmarks.deaf"]) if spec is RELAY else spec
        for spec in OURS.specs
    ),
)


def run(options: Options, say: Say) -> Result:
    """Compare; the ratio is of the medians from commit to first step, so below 1 is faster."""
    orders = options.scaled(200, 20)
    contestants = [
        Contestant(name="naive", run=lambda: latencies(systems.naive(), orders)),
        Contestant(name="tuned", run=lambda: latencies(systems.tuned(), orders), baseline="naive"),
        Contestant(
            name="orderflow", run=lambda: latencies(systems.ours(options.pool), orders), baseline="naive"
        ),
    ]
    result = Result(scenario="latency", unit="ms from commit to first step, median")
    result.rows = alternate(contestants, rounds=options.rounds, say=say)
    deaf = Contestant(name=DEAF.name, run=lambda: latencies(DEAF, max(1, orders // 4)))
    result.rows += alternate([deaf], rounds=1, say=say)
    ours, tuned = result.row("orderflow"), result.row("tuned")
    result.judge("no slower to the first step than naive, ratio", ours.ratio or 0.0, most=1.0)
    result.judge("first step p50 at most 5 ms", ours.median, most=5.0)
    result.judge("first step p99 at most 15 ms", ours.counts["first p99"], most=15.0)
    result.judge(
        "fulfilled p50 within 1.2 x tuned naive",
        ours.counts["fulfilled p50"] / tuned.counts["fulfilled p50"],
        most=1.2,
    )
    interval = 1000 * schedule.DRAIN_INTERVAL
    latest = result.row(DEAF.name).counts["first max"]
    result.judge(f"beat alone: first step within its interval of {interval:.0f} ms", latest, most=interval + 50)
    return result


def latencies(system: System, orders: int) -> Sample:
    """
    Place orders at `RATE` and read when their steps began and ended.

    Raises:
        Incorrect: if a step is missing, or an order was not processed exactly once.
    """
    with system.up(BENCHMARK_TIMES="1"):
        warm = system.warm
        committed: dict[str, float] = systems.place(system.writer, orders, rate=RATE)["committed"]
        systems.wait_until_done(orders + warm, within=60)
        systems.check(orders + warm)
    first = _since(committed, "began validate")
    fulfilled = _since(committed, "ended fulfill")
    return Sample(
        value=percentile(first, 0.5),
        units=orders,
        counts={
            "first p99": percentile(first, 0.99),
            "first max": max(first),
            "fulfilled p50": percentile(fulfilled, 0.5),
            "fulfilled p99": percentile(fulfilled, 0.99),
        },
    )


def _since(committed: dict[str, float], kind: str) -> list[float]:
    """The milliseconds from each order's commit to its first such entry in the ledger."""
    at: dict[str, float] = {}
    for line in ledger.read(kind):
        at.setdefault(line.key, line.at)
    if missing := set(committed) - set(at):
        raise Incorrect(f"{kind} was never noted for {len(missing)} of {len(committed)} orders")
    return [1000 * (at[order] - committed[order]) for order in committed]
