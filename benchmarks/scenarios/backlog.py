"""A long backlog beside many published rows: draining and looking must not slow down with either."""

from __future__ import annotations

import statistics
import time
from typing import Any

import psycopg
from django.db import connection

from benchmarks import tables
from benchmarks.harness import Contestant, Incorrect, Result, Sample, alternate, spread
from benchmarks.scenarios import Options, Say
from outbox import relay
from outbox.bookmark import Bookmark

LOOKS = 50
MOST = 2_000
"""Messages drained from each backlog, so that all take about as long."""


def run(options: Options, say: Say) -> Result:
    """Drain the first messages of backlogs of growing length, and look for work where there is none."""
    published = 10_000 if options.quick else options.published
    sizes = (
        [2_400, 8_000] if options.quick else [4_000, options.scaled(100_000, 0), options.scaled(1_000_000, 0)]
    )
    most = 400 if options.quick else MOST
    contestants = [
        Contestant(
            name=f"{size:,} waiting",
            run=lambda size=size: drained(size, most),  # type: ignore[misc]
            baseline=f"{sizes[0]:,} waiting" if size != sizes[0] else "",
        )
        for size in sizes
    ]
    pinned = f"{sizes[0]:,} waiting, old snapshot"
    contestants.append(
        Contestant(
            name=pinned,
            run=lambda: drained(sizes[0], most, snapshot=True),
            baseline=f"{sizes[0]:,} waiting",
        )
    )
    result = Result(scenario="backlog", unit="messages/s")
    tables.clean()
    tables.write_messages(published, published=True)
    result.rows = alternate(contestants, rounds=1 if options.quick else options.rounds, say=say)
    flat = result.rows[: len(sizes)]
    result.judge("rows/s flat within 15 %, spread", spread([row.median for row in flat]), most=0.15)
    looks = [row.counts["empty look ms"] for row in flat]
    result.judge("looking for nothing flat within 15 %, spread", spread(looks), most=0.15)
    claims = [row.counts["claims/s"] for row in flat]
    result.judge("claiming alone flat within 15 %, spread", spread(claims), most=0.15)
    result.judge("an old snapshot costs less than 2 x, ratio", result.row(pinned).ratio or 0.0, least=0.5)
    result.notes.append(f"{published:,} published messages lie beside")
    return result


def drained(waiting: int, most: int, *, snapshot: bool = False) -> Sample:
    """Drain `most` of `waiting` messages beside the published ones, with or without an old snapshot open."""
    tables.write_messages(waiting)
    _vacuum()
    with psycopg.connect(**_parameters()) as link:
        if snapshot:
            link.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            link.execute("SELECT count(*) FROM outbox_relaystate")
        began = time.perf_counter()
        bookmark = Bookmark()
        done = relay.drain(most=most, bookmark=bookmark)
        took = time.perf_counter() - began
        if done.published < min(most, waiting):
            raise Incorrect(f"{done} of {most} messages")
        claims = _claims_per_second(bookmark)
        look = _empty_look(bookmark)
        link.execute("ROLLBACK")
    tables.clean_queues()
    return Sample(value=done.published / took, counts={"empty look ms": look, "claims/s": claims})


def _claims_per_second(bookmark: Bookmark) -> float:
    """Claiming and settling all that is left, which is what the backlog costs without the sending."""
    began, count = time.perf_counter(), 0
    while batch := relay.claim(relay.BATCH, bookmark=bookmark):
        relay.settle(batch)
        count += len(batch)
    return count / (time.perf_counter() - began)


def _empty_look(bookmark: Bookmark) -> float:
    """Milliseconds a relay takes to find nothing, median; now and then it looks from the very beginning."""
    times = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        found = relay.claim(relay.BATCH, bookmark=bookmark)
        times.append(1000 * (time.perf_counter() - began))
        if found:
            raise Incorrect("something was left to claim")
    return statistics.median(times)


def _vacuum() -> None:
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE outbox_outboxmessage")


def _parameters() -> dict[str, Any]:
    known = connection.get_connection_params()
    return {name: value for name, value in known.items() if name not in ("cursor_factory", "context")}
