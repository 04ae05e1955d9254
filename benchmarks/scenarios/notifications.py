"""E-mails at 50 ms per provider call: how busy the channel keeps its pool, compared with Celery alone."""

from __future__ import annotations

import dataclasses

from django.db import connection

from benchmarks import ledger, measure, processes, systems, tables
from benchmarks.harness import Contestant, Incorrect, Result, Sample, alternate
from benchmarks.scenarios import Options, Say
from benchmarks.systems import EMAIL
from notifications.models import Notification
from orderflow.stack.processes import LATER_POOLS
from orders.contracts import OrderFulfilled
from outbox.relay import relay

CALL = 0.05
POOL = 4
CALLS = {"BENCHMARK_ANSWER_SECONDS": str(CALL)}


def run(options: Options, say: Say) -> Result:
    """Send what a relay has queued, with a pool of four; the ratio is to pool size ÷ call time."""
    mails = options.scaled(3_000, 60)
    result = Result(scenario="notifications", unit="e-mails/s")
    most = POOL / CALL
    result.rows = alternate(
        [
            Contestant(name="pool / call time", run=lambda: Sample(value=most)),
            Contestant(name="celery alone", run=lambda: called(mails), baseline="pool / call time"),
            Contestant(name="orderflow", run=lambda: sent(mails), baseline="pool / call time"),
        ],
        rounds=options.rounds,
        say=say,
    )
    result.judge("at least 90 % of pool size / call time", result.row("orderflow").ratio or 0.0, least=0.9)
    return result


def sent(mails: int) -> Sample:
    """
    Queue the e-mails, start the pool, and measure from the first one sent to the last.

    Raises:
        Incorrect: if one is missing or was sent twice.
    """
    tables.clean()
    tables.write_messages(mails, of=OrderFulfilled, carrier="Stub Parcel", tracking_number="1")
    done = relay.drain()
    if done.published != mails:
        raise Incorrect(f"{done} of {mails} messages")
    with processes.running([_worker()]) as groups:
        meter = measure.Meter(systems.servers_and(groups))
        sent = Notification.objects.filter(status=Notification.Status.SENT)
        processes.until(lambda: sent.count() >= mails, within=900, what=f"{mails} e-mails sent")
        cpu, _ = meter.read()
    systems.check_ledger("mail", mails)
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM max(sent_at) - min(sent_at)) FROM notifications_notification")
        took = float(cursor.fetchone()[0])
    return Sample(value=(mails - 1) / took, units=mails, cpu=cpu)


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
    return dataclasses.replace(worker, environment={**worker.environment, **CALLS})


def _worker() -> processes.Spec:
    """The channel's worker with a pool of `POOL`."""
    command = [*EMAIL.command]
    usual = LATER_POOLS["email"]
    first = command.index(usual[0])
    command[first : first + len(usual)] = ["-c", str(POOL)]
    return dataclasses.replace(EMAIL, command=command, environment={**EMAIL.environment, **CALLS})
