"""
Providers that take 200 and 500 ms: how many orders wait at once, in how much memory and how many sessions.

OrderFlow, naive workers at their default size and as many as fit into 2 GB, and procrastinate's async workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from benchmarks import measure, systems
from benchmarks.harness import Contestant, Result, Row, Sample, alternate, figure
from benchmarks.pools import PREFORK
from benchmarks.procrastinate import sql, venv
from benchmarks.procrastinate import system as procrastinate
from benchmarks.scenarios import Options, Say
from benchmarks.scenarios.pipeline import throughput
from benchmarks.systems import System

ROOM = 2_000
"""Megabytes for the larger naive system."""

PREFORK_SIZE = 8
"""Processes for steps, and as many for e-mails, of OrderFlow with prefork."""

WANTED = {0.2: 75.0, 0.5: 50.0}
"""Orders per second by the seconds of a provider call, on the machine for which the targets are stated."""

FIRST = next(iter(WANTED))
REFERENCE = 2.8
"""The naive system's orders per second at 200 ms on that machine."""

MOST_MEMORY, MOST_SESSIONS = 600, 20
TIMES_NAIVE_PER_GB = 12.0
OTHERS = (("procrastinate,", 1.5, ""), ("procrastinate tuned,", 1.0, "stretch: "))
"""Systems that OrderFlow is compared with, and the wanted ratios to the best of each."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A system, and its orders in one round at 200 ms and at 500 ms: about twenty seconds each."""

    system: System
    orders: int
    fewer: int

    def contestant(self, seconds: float, options: Options) -> Contestant:
        """It as a contestant at this response time."""
        orders = self.orders if seconds == FIRST else self.fewer
        baseline = "" if self.system.name == "naive" else named("naive", seconds)
        return Contestant(
            name=named(self.system.name, seconds),
            run=lambda: with_shares(throughput(self.system, options.scaled(orders, orders), answer=seconds)),
            baseline=baseline,
        )


def run(options: Options, say: Say) -> Result:
    """Compare at both response times; naive's rate shows how fast the machine is, and scales the targets."""
    result = Result(scenario="waiting", unit="orders/s")
    if options.quick:  # the results of the two are checked, at one response time
        few = [Candidate(systems.naive(), 8, 8), Candidate(systems.ours(options.pool), 40, 40)]
        result.rows = alternate([one.contestant(FIRST, options) for one in few], rounds=1, say=say)
        return result
    most = systems.POOL
    if not options.only:
        most = fitting()
        say(f"{most} naive processes fit into {ROOM:,} MB")
    candidates = [
        Candidate(systems.naive(), 60, 24),
        Candidate(dataclasses.replace(systems.naive(pool=most), name=f"naive, {most} processes"), 400, 160),
        Candidate(systems.ours(options.pool), *((400, 160) if options.pool == PREFORK else (1_600, 1_000))),
    ]
    if options.pool != PREFORK:
        name = f"orderflow, {PREFORK_SIZE} + {PREFORK_SIZE} processes"
        prefork = systems.ours(PREFORK, steps=PREFORK_SIZE, emails=PREFORK_SIZE, name=name)
        candidates.append(Candidate(prefork, 400, 160))
    with _asynchronous(result) as others:
        for seconds in WANTED:
            contestants = [candidate.contestant(seconds, options) for candidate in (*candidates, *others)]
            result.rows += alternate(options.chosen(contestants), rounds=options.rounds, say=say)
    if not options.only:
        judge(result)
    return result


@contextlib.contextmanager
def _asynchronous(result: Result) -> Iterator[list[Candidate]]:
    """Procrastinate with one and two workers; none, and the reason in the result, if it is not to be had."""
    with contextlib.ExitStack() as stack:
        try:
            python = stack.enter_context(procrastinate.installed())
        except venv.Unavailable as reason:
            result.notes.append(f"procrastinate was left out: {reason}")
            yield []
            return
        yield [
            Candidate(procrastinate.system(workers, python=python, writer=writer), 1_600, 1_000)
            for writer in sql.FIRST_JOBS
            for workers in (1, 2)
        ]


def fitting() -> int:
    """The number of naive processes that fit into `ROOM`, by the memory of a few with warm caches."""
    few, more = 2, 4
    with systems.naive(pool=few).up() as groups:
        smaller = sum(measure.memory_of(groups).values()) / 1e6
    with systems.naive(pool=more).up() as groups:
        larger = sum(measure.memory_of(groups).values()) / 1e6
    return int(more + (ROOM - larger) * (more - few) / (larger - smaller))


def named(system: str, seconds: float) -> str:
    """The name of a system's row at this response time."""
    return f"{system}, {1000 * seconds:.0f} ms"


def with_shares(sample: Sample) -> Sample:
    """Add the orders per second for each gigabyte and for each session."""
    shares = {
        "per GB": sample.value / (sample.counts["MB"] / 1000),
        "per session": sample.value / (sample.counts["sessions"] or 1),
    }
    return dataclasses.replace(sample, counts={**sample.counts, **shares})


def judge(result: Result) -> None:
    """Compare with the targets; rates are scaled by naive's in the same run."""
    factor = result.row(named("naive", FIRST)).median / REFERENCE
    result.notes.append(
        f"rates are wanted on a machine where naive manages {REFERENCE:g} orders/s at {1000 * FIRST:.0f} ms; "
        f"in this run the targets for rates are {factor:.2f} of those"
    )
    for seconds, rate in WANTED.items():
        ours, at = result.row(named("orderflow", seconds)), f"at {1000 * seconds:.0f} ms"
        least = rate * factor
        result.judge(f"{at} {figure(least)} orders/s ({rate:g} x {factor:.2f})", ours.median, least=least)
        result.judge(f"{at} at most {MOST_MEMORY} MB", ours.counts["MB"], most=MOST_MEMORY)
        result.judge(f"{at} at most {MOST_SESSIONS} sessions", ours.counts["sessions"], most=MOST_SESSIONS)
        if seconds != FIRST:
            continue
        for system, least, kind in OTHERS:
            if others := rows(result, system, seconds):
                best = max(others, key=lambda row: row.median)
                result.judge(
                    f"{kind}{at} {least:g} x {best.name}", result.ratio(ours.name, best.name), least=least
                )
        best = max(rows(result, "naive", seconds), key=lambda row: row.counts["per GB"])
        ratio, least = ours.counts["per GB"] / best.counts["per GB"], TIMES_NAIVE_PER_GB
        result.judge(f"{at} {least:g} x the rate per GB of {best.name}", ratio, least=least)


def rows(result: Result, system: str, seconds: float) -> list[Row]:
    """The rows of all sizes of a system at this response time."""
    return [row for row in result.rows if row.name.startswith(system) and row.name.endswith(named("", seconds))]
