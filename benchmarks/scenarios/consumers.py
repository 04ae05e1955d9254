"""
Competing consumers: e-mails drained by 1, 2, 4 and 8 worker processes, with pools of processes and of threads.

Each number of processes should do as much more as it has slots, until the processors are busy. The results are
also drawn, as `consumers-BROKER.svg` in the folder named with `--pictures`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

from django.db import connection

from benchmarks import measure, pools, processes, systems, tables
from benchmarks.harness import Contestant, Incorrect, Result, Sample, alternate, figure
from benchmarks.pictures import consumers as picture
from benchmarks.pools import PREFORK, THREADS
from benchmarks.processes import Spec
from benchmarks.scenarios import Options, Say
from notifications.models import Notification
from orders.contracts import OrderFulfilled
from outbox.relay import relay

MESSAGES = 10_000
MOST_WAITING = 60.0
"""Seconds for which calls alone may keep all slots busy; fewer messages are sent where it would be longer."""

WORKERS = (1, 2, 4, 8)
CALLS = (0.0, 0.05, 0.2)
THREADS_EACH = 32

BUSY = 0.85
"""The share of all processors from which they count as busy."""

NEAR = 0.85
"""The wanted share of twice the rate with twice the processes, where the processors have time left for it."""


def run(options: Options, say: Say) -> Result:
    """Measure each combination once, or as often as `--rounds` says."""
    workers, calls = ((1, 2), (0.05,)) if options.quick else (WORKERS, CALLS)
    result = Result(scenario="consumers", unit="messages/s")
    contestants = [
        _contestant(pool, count, seconds, options)
        for pool in (PREFORK, THREADS)
        for seconds in calls
        for count in workers
    ]
    result.rows = alternate(contestants, rounds=options.rounds_named or 1, say=say)
    if not options.quick:
        for pool in (PREFORK, THREADS):
            for seconds in calls:
                judge(result, pool, seconds, workers)
    points = [point(result, p, count, s) for p in (PREFORK, THREADS) for s in calls for count in workers]
    result.notes += ["", *table(points), ""]
    drawn = picture.draw(points, title=f"Competing consumers, {TITLES[options.broker]}", subtitle=_subtitle())
    path = options.pictures / f"consumers-{options.broker}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drawn)
    result.notes.append(f"drawn in {path}")
    return result


TITLES = {"redis": "Redis", "rabbitmq": "RabbitMQ"}


def messages(pool: str, workers: int, seconds: float, *, size: float = 1.0) -> int:
    """The messages of one measurement."""
    slots = workers * (1 if pool == PREFORK else THREADS_EACH)
    most = MESSAGES if not seconds else min(MESSAGES, MOST_WAITING * slots / seconds)
    return max(2, round(size * most))


def named(pool: str, workers: int, seconds: float) -> str:
    """The name of a row."""
    return f"{pool}, {workers}, {1000 * seconds:.0f} ms"


def _contestant(pool: str, workers: int, seconds: float, options: Options) -> Contestant:
    count = 40 if options.quick else messages(pool, workers, seconds, size=options.size)
    return Contestant(
        name=named(pool, workers, seconds),
        run=lambda: drained(consumers(pool, workers, seconds), count, seconds),
        baseline="" if workers == 1 else named(pool, 1, seconds),
    )


def consumers(pool: str, workers: int, seconds: float) -> list[Spec]:
    """One worker with this many processes, or this many workers with `THREADS_EACH` threads each."""
    call = {"BENCHMARK_ANSWER_SECONDS": str(seconds)}
    if pool == PREFORK:
        return [systems.own_worker("email", *pools.options(pool, workers), **call)]
    options = pools.options(pool, THREADS_EACH)
    return [
        systems.own_worker("email", *options, number=str(number), **call) for number in range(1, workers + 1)
    ]


def drained(specs: Sequence[Spec], mails: int, call: float) -> Sample:
    """
    Start the workers, then publish the e-mails, and measure from the first call, which takes this long, to the
    last e-mail sent.

    Raises:
        Incorrect: if one is missing or was sent twice.
    """
    tables.clean()
    tables.write_messages(mails, of=OrderFulfilled, carrier="Stub Parcel", tracking_number="1")
    sent = Notification.objects.filter(status=Notification.Status.SENT)
    with processes.running(specs) as groups:
        meter, ticks = measure.Meter(systems.servers_and(groups)), measure.ticks()
        published = relay.drain().published
        if published != mails:
            raise Incorrect(f"{published} of {mails} messages were published")
        processes.until(lambda: sent.count() >= mails, within=900, what=f"{mails} e-mails sent", every=0.25)
        busy = measure.share(ticks)
        cpu, _ = meter.read()
    systems.check_ledger("mail", mails)
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM max(sent_at) - min(sent_at)) FROM notifications_notification")
        took = float(cursor.fetchone()[0])
    return Sample(value=mails / (took + call), units=mails, cpu=cpu, counts={"busy %": 100 * busy})


def judge(result: Result, pool: str, seconds: float, workers: Sequence[int]) -> None:
    """Twice the processes do nearly twice as much, where the processors have time left for twice as much."""
    found = [point(result, pool, count, seconds) for count in workers]
    free = [
        (few, more)
        for few, more in itertools.pairwise(found)
        if _busy(result, few) * more.workers / few.workers < BUSY
    ]
    what = f"{pool}, {1000 * seconds:.0f} ms"
    if free:
        least = min(more.rate / few.rate / (more.workers / few.workers) for few, more in free)
        until = free[-1][1].workers
        result.judge(f"{what}: near-linear up to {until} processes, share of linear", least, least=NEAR)
    if pool == THREADS:
        result.judge(
            f"{what}: two processes are not slower than one", found[1].rate / found[0].rate, least=0.95
        )


def _busy(result: Result, point: picture.Point) -> float:
    return result.row(named(point.pool, point.workers, point.milliseconds / 1000)).counts["busy %"] / 100


def point(result: Result, pool: str, workers: int, seconds: float) -> picture.Point:
    """A row as a point of the picture."""
    row = result.row(named(pool, workers, seconds))
    return picture.Point(
        pool=pool,
        workers=workers,
        milliseconds=round(1000 * seconds),
        rate=row.median,
        busy=row.counts["busy %"] >= 100 * BUSY,
    )


def table(points: Sequence[picture.Point]) -> list[str]:
    """The rates as a table in Markdown; those at which the processors were busy are in italics."""
    columns = list(dict.fromkeys((point.pool, point.milliseconds) for point in points))
    rates = {(point.pool, point.milliseconds, point.workers): point for point in points}
    lines = [
        "| Processes | " + " | ".join(f"{pool}, {milliseconds} ms" for pool, milliseconds in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for workers in sorted({point.workers for point in points}):
        found = [rates[(*column, workers)] for column in columns]
        cells = [f"*{figure(one.rate)}*" if one.busy else figure(one.rate) for one in found]
        lines.append(f"| {workers} | {' | '.join(cells)} |")
    return lines


def _subtitle() -> str:
    return f"E-mails per second on {os.cpu_count()} processors, by the response time of the provider"
