"""
Orders from placing to their e-mail: throughput with real workers, compared with naive and tuned naive, and
with an earlier commit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from benchmarks import against, measure, systems
from benchmarks.harness import Contestant, Result, Sample, alternate
from benchmarks.scenarios import Options, Say
from benchmarks.systems import System

WRITERS = 2
SLOW = 0.05
"""Seconds per provider call, in the runs with slow providers."""

TIMES_TUNED = {"redis": 2.0, "rabbitmq": 1.7}
LESS_CPU = 0.6
"""The wanted ratio of the processor time of an order to that at the commit named with `--against`."""


def run(options: Options, say: Say) -> Result:
    """Compare at 0 ms, and with an eighth of the orders at 50 ms per provider call."""
    orders = options.scaled(2_000, 40)
    result = Result(scenario="pipeline", unit="orders/s")
    with _other(options.against, orders) as others:
        contestants = [*_contestants(orders, options), *others]
        if options.quick:
            contestants = [contestant for contestant in contestants if contestant.name != "tuned"]
        result.rows = alternate(options.chosen(contestants), rounds=options.rounds, say=say)
    names = {row.name for row in result.rows}
    for other in others:
        if {"orderflow", other.name} <= names:
            _compare(result, other.name)
    if options.only:
        return result
    _judge(result, options)
    if not options.quick and not options.against:
        waiting = _contestants(max(1, orders // 8), options, pool=systems.ALL, answer=SLOW)
        result.rows += alternate(waiting, rounds=options.rounds, say=say)
    return result


def _contestants(
    orders: int, options: Options, *, pool: int = systems.POOL, answer: float = 0.0
) -> list[Contestant]:
    suffix = f", {1000 * answer:.0f} ms" if answer else ""

    def contestant(system: System, baseline: str = "") -> Contestant:
        return Contestant(
            name=system.name + suffix,
            run=lambda: throughput(system, orders, answer=answer),
            baseline=baseline and baseline + suffix,
        )

    return [
        contestant(systems.naive(pool=pool)),
        contestant(systems.tuned(pool=pool), "naive"),
        contestant(systems.ours(options.pool), "naive"),
    ]


@contextlib.contextmanager
def _other(commit: str, orders: int) -> Iterator[list[Contestant]]:
    """OrderFlow at this commit as a contestant, if one is named."""
    if not commit:
        yield []
        return
    with against.checked_out(commit) as other:
        yield [Contestant(name=other.name, run=lambda: other.throughput(orders), baseline="naive")]


def _judge(result: Result, options: Options) -> None:
    ours = result.row("orderflow")
    result.judge("at least 4 x naive at default settings", ours.ratio or 0.0, least=4.0)
    if not options.quick:
        wanted = TIMES_TUNED[options.broker]
        result.judge(f"at least {wanted:g} x tuned naive", result.ratio("orderflow", "tuned"), least=wanted)


def _compare(result: Result, other: str) -> None:
    ratio = result.cost_ratio("orderflow", other)
    result.judge(f"at most {LESS_CPU:g} x the CPU per order of {other}", ratio, most=LESS_CPU)
    result.judge(f"no slower than {other}, ratio", result.ratio("orderflow", other), least=1.0)


def throughput(system: System, orders: int, *, answer: float = 0.0) -> Sample:
    """
    Place orders as fast as possible while the system processes them, and check all of them.

    Raises:
        Incorrect: if an order is not fulfilled, or anything was done twice.
    """
    with system.up(BENCHMARK_ANSWER_SECONDS=str(answer)) as groups:
        systems.wait_a_moment()
        meter = measure.Meter(systems.servers_and(groups))
        with measure.Peaks(groups) as peaks:
            report = systems.place(system.writer, orders, writers=WRITERS)
            systems.wait_until_done(orders + system.warm)
        took = systems.last_sent_at() - report["began"]
        systems.wait_a_moment()
        cpu, transactions = meter.read()
        systems.check(orders + system.warm)
    return Sample(
        value=orders / took,
        units=orders,
        cpu={"client": report["cpu"], **cpu},
        counts={
            "transactions": transactions / orders,
            "MB": peaks.memory / 1e6,
            "sessions": peaks.sessions,
        },
    )
