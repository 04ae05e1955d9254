"""A long backlog beside many published rows: neither may slow down draining or polling."""

from __future__ import annotations

import statistics
import time
from typing import Any

import psycopg
from django.db import connection

from benchmarks import tables
from benchmarks.harness import Contestant, Incorrect, Result, Sample, alternate
from benchmarks.scenarios import Options, Say
from outbox.relay import relay
from outbox.relay.watermark import Watermark

LOOKS = 50
ENOUGH = 10_000
"""Messages drained for one figure, so that it takes a second."""


def run(options: Options, say: Say) -> Result:
    """Drain the first messages of backlogs of growing length, and poll when there is no work."""
    published = 10_000 if options.quick else options.published
    sizes = (
        [2_400, 8_000] if options.quick else [4_000, options.scaled(100_000, 0), options.scaled(1_000_000, 0)]
    )
    enough = 1_200 if options.quick else ENOUGH
    contestants = [
        Contestant(
            name=f"{size:,} waiting",
            run=lambda size=size: drained(size, enough),  # type: ignore[misc]
            baseline=f"{sizes[0]:,} waiting" if size != sizes[0] else "",
        )
        for size in sizes
    ]
    pinned = f"{sizes[0]:,} waiting, old snapshot"
    contestants.append(
        Contestant(
            name=pinned,
            run=lambda: drained(sizes[0], enough, snapshot=True),
            baseline=f"{sizes[0]:,} waiting",
        )
    )
    result = Result(scenario="backlog", unit="messages/s")
    tables.clean()
    tables.write_messages(published, published=True)
    result.rows = alternate(contestants, rounds=1 if options.quick else options.rounds, say=say)
    shortest, *longer = result.rows[: len(sizes)]
    rate = min(row.median for row in longer) / shortest.median
    result.judge("rows/s of the longer ones at most 15 % lower", rate, least=0.85)
    look = max(row.counts["empty look ms"] for row in longer) / shortest.counts["empty look ms"]
    result.judge("looking for nothing takes at most 15 % longer", look, most=1.15)
    claims = min(row.counts["claims/s"] for row in longer) / shortest.counts["claims/s"]
    result.judge("claiming alone at most 15 % slower", claims, least=0.85)
    result.judge("an old snapshot costs less than 2 x, ratio", result.row(pinned).ratio or 0.0, least=0.5)
    result.notes.append(f"{published:,} published messages lie beside")
    return result


def drained(waiting: int, enough: int, *, snapshot: bool = False) -> Sample:
    """
    Drain `enough` messages beside the published ones, with or without an open old snapshot, and claim the rest.

    Of a short backlog half is drained, repeatedly.
    """
    published = claimed = 0
    draining = claiming = 0.0
    samples: list[float] = []
    while published < enough:
        tables.write_messages(waiting)
        _vacuum()
        with psycopg.connect(**_parameters()) as session:
            if snapshot:
                session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                session.execute("SELECT count(*) FROM outbox_relaystate")
            watermark = Watermark()
            began = time.perf_counter()
            published += relay.drain(most=min(enough, waiting // 2), watermark=watermark).published
            enough_at = time.perf_counter()
            claimed += _claim_the_rest(watermark)
            draining, claiming = draining + enough_at - began, claiming + time.perf_counter() - enough_at
            samples += _empty_looks(watermark)
            session.execute("ROLLBACK")
        tables.clean_queues()
    return Sample(
        value=published / draining,
        counts={"empty look ms": statistics.median(samples), "claims/s": claimed / claiming},
    )


def _claim_the_rest(watermark: Watermark) -> int:
    """Claim and settle everything that is left: the cost of a backlog without sending; return the count."""
    count = 0
    while batch := relay.claim(relay.BATCH, watermark=watermark):
        relay.settle(batch)
        count += len(batch)
    return count


def _empty_looks(watermark: Watermark) -> list[float]:
    """The milliseconds a relay takes to find nothing; sometimes it searches from the very beginning."""
    times = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        found = relay.claim(relay.BATCH, watermark=watermark)
        times.append(1000 * (time.perf_counter() - began))
        if found:
            raise Incorrect("something was left to claim")
    return times


def _vacuum() -> None:
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE outbox_outboxmessage")


def _parameters() -> dict[str, Any]:
    known = connection.get_connection_params()
    return {name: value for name, value in known.items() if name not in ("cursor_factory", "context")}
