"""Orders from placing to their e-mail: throughput with real workers, compared with naive and tuned naive."""

from __future__ import annotations

from benchmarks import measure, systems
from benchmarks.harness import Contestant, Result, Sample, alternate
from benchmarks.scenarios import Options, Say
from benchmarks.systems import OURS, System

WRITERS = 2
SLOW = 0.05
"""Seconds per provider call, in the runs with slow providers."""


def run(options: Options, say: Say) -> Result:
    """Compare at 0 ms, and with an eighth of the orders at 50 ms per provider call."""
    orders = options.scaled(2_000, 40)
    result = Result(scenario="pipeline", unit="orders/s")
    contestants = _contestants(orders, pool=systems.POOL)
    if options.quick:
        contestants = [contestant for contestant in contestants if contestant.name != "tuned"]
    result.rows = alternate(contestants, rounds=options.rounds, say=say)
    _judge(result, options)
    if not options.quick:
        waiting = _contestants(max(1, orders // 8), pool=systems.ALL, answer=SLOW)
        result.rows += alternate(waiting, rounds=options.rounds, say=say)
    return result


def _contestants(orders: int, *, pool: int, answer: float = 0.0) -> list[Contestant]:
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
        contestant(OURS, "naive"),
    ]


def _judge(result: Result, options: Options) -> None:
    ours = result.row("orderflow")
    result.judge("at least 4 x naive at default settings", ours.ratio or 0.0, least=4.0)
    if not options.quick:
        ratio = result.ratio("orderflow", "tuned")
        result.judge("at least 1.5 x tuned naive", ratio, least=1.5)
        result.judge("stretch: 2 x tuned naive", ratio, least=2.0)


def throughput(system: System, orders: int, *, answer: float = 0.0) -> Sample:
    """
    Place orders as fast as possible while the system processes them, and check all of them.

    Raises:
        Incorrect: if an order is not fulfilled, or anything was done twice.
    """
    with system.up(BENCHMARK_ANSWER_SECONDS=str(answer)) as groups:
        warm = 2 * systems.POOL
        systems.wait_a_moment()
        meter = measure.Meter(systems.servers_and(groups))
        report = systems.place(system.writer, orders, writers=WRITERS)
        systems.wait_until_done(orders + warm)
        took = systems.last_sent_at() - report["began"]
        systems.wait_a_moment()
        cpu, transactions = meter.read()
        systems.check(orders + warm)
    return Sample(
        value=orders / took,
        units=orders,
        cpu={"client": report["cpu"], **cpu},
        counts={"transactions": transactions / orders},
    )
