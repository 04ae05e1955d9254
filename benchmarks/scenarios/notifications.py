"""E-mails: how busy the channel keeps its pool, against pool size ÷ call time and against Celery alone."""

from __future__ import annotations

import dataclasses

from benchmarks import ledger, measure, pools, processes, systems, tables
from benchmarks.harness import Contestant, Result, Sample, alternate
from benchmarks.pools import THREADS
from benchmarks.scenarios import Options, Say
from benchmarks.scenarios.consumers import drained

CALL = 0.05
POOL = 4
"""Where 50 ms calls leave the processors idle, so that only the pool's own pauses count."""

LONG_CALL = 0.2
MANY = 32
"""The pool of `run.py`, with calls as long as real ones."""

WANTED = 0.95


def run(options: Options, say: Say) -> Result:
    """Send what a relay has queued; the ratios are to pool size ÷ call time."""
    mails = options.scaled(3_000, 60)
    result = Result(scenario="notifications", unit="e-mails/s")
    most, more = POOL / CALL, MANY / LONG_CALL
    contestants = [
        Contestant(name="pool / call time", run=lambda: Sample(value=most)),
        Contestant(name="celery alone", run=lambda: called(mails), baseline="pool / call time"),
        Contestant(
            name="orderflow", run=lambda: sent(mails, options.pool, POOL, CALL), baseline="pool / call time"
        ),
    ]
    if options.pool == THREADS and not options.quick:
        many, theirs = f"orderflow, {MANY} at {1000 * LONG_CALL:.0f} ms", "pool / call time, many"
        contestants += [
            Contestant(name=theirs, run=lambda: Sample(value=more)),
            Contestant(name=many, run=lambda: sent(mails, THREADS, MANY, LONG_CALL), baseline=theirs),
        ]
    result.rows = alternate(contestants, rounds=options.rounds, say=say)
    for row in result.rows:
        if row.name.startswith("orderflow"):
            result.judge(f"{row.name}: 95 % of pool size / call time", row.ratio or 0.0, least=WANTED)
    return result


def sent(mails: int, pool: str, size: int, call: float) -> Sample:
    """Send the e-mails with the channel's worker, with a pool of this size."""
    return drained([systems.own_worker("email", *pools.options(pool, size), **_answering(call))], mails, call)


def called(calls: int) -> Sample:
    """
    The calls alone, without database or texts, in a pool with late acknowledgement and no prefetching.

    Raises:
        Incorrect: if one is missing or was made twice.
    """
    from benchmarks.naive import tasks

    tables.clean()
    for number in range(calls):
        tasks.only_call.delay(str(number))
    with processes.running([_only_calling()]) as groups:
        meter = measure.Meter(systems.servers_and(groups))
        processes.until(lambda: len(ledger.read("mail")) >= calls, within=900, what=f"{calls} calls")
        cpu, _ = meter.read()
    systems.check_ledger("mail", calls)
    at = [line.at for line in ledger.read("mail")]
    return Sample(value=(calls - 1) / (max(at) - min(at)), units=calls, cpu=cpu)


def _only_calling() -> processes.Spec:
    worker = systems.celery(
        "benchmarks.naive", "calls", "worker", "-c", str(POOL), "--prefetch-multiplier", "1", **systems.NAIVE
    )
    return dataclasses.replace(worker, environment={**worker.environment, **_answering(CALL)})


def _answering(call: float) -> dict[str, str]:
    return {"BENCHMARK_ANSWER_SECONDS": str(call)}
