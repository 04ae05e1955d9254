"""
Which workers, relays and beats are alive and which are gone, by the heartbeats they write.

A process is gone if it is no longer seen, did not end in order, and no other one has taken its place. A process
of the same role and pool takes its place if it was started after the other one was last seen; each takes one
place. Containers have a new name after every start, so a lost one would otherwise stay gone for a day.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection

from outbox.conf import settings

GONE_AFTER_BEATS = 3
"""A process that has missed so many heartbeats counts as gone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """The processes of one role and pool."""

    role: str
    """`worker`, `relay` or `beat`."""
    pool: str
    alive: int
    gone: int
    oldest_seen_seconds: float | None
    """For how long the process has not been seen that was seen least recently, among those that are alive or
    gone; None if all have ended in order."""
    queues: tuple[str, ...]
    """The queues that the living ones consume, in the order of their names."""

    def as_json(self) -> dict[str, Any]:
        """Return the standing as plain data."""
        return dataclasses.asdict(self) | {"queues": list(self.queues), "says": str(self)}

    def __str__(self) -> str:
        gone = f", {self.gone} gone" if self.gone else ""
        if self.oldest_seen_seconds is None:
            return "0 alive: ended in order"
        return f"{self.alive} alive{gone}, seen {self.oldest_seen_seconds:g} s ago"


def gone_after() -> float:
    """Return after how many seconds without a heartbeat a process counts as gone."""
    return GONE_AFTER_BEATS * settings.HEARTBEAT_SECONDS


HEARTBEATS = """
    SELECT role, pool, queues, ended_at IS NOT NULL AS has_ended,
        extract(epoch FROM statement_timestamp() - started_at)::float8 AS started,
        extract(epoch FROM statement_timestamp() - seen_at)::float8 AS seen
    FROM outbox_heartbeat ORDER BY role, pool, seen_at
"""
"""What `standings_of` needs, for a statement that reads more than that."""


def standings() -> list[Standing]:
    """Return the standing of each role and pool of which a process was seen in the last day. One query."""
    with connection.cursor() as cursor:
        cursor.execute(HEARTBEATS)
        return standings_of(cursor.fetchall())


def standings_of(heartbeats: Iterable[Sequence[Any]]) -> list[Standing]:
    """Return the standing of each role and pool in the rows of `HEARTBEATS`."""
    rows = [_Row(*row) for row in heartbeats]
    return [
        _standing(role, pool, list(of_pool))
        for (role, pool), of_pool in itertools.groupby(rows, key=lambda row: (row.role, row.pool))
    ]


def queues_with_consumers() -> dict[str, int]:
    """Return the queues that living processes consume, with the number of these processes."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT queue, count(*) FROM outbox_heartbeat, unnest(queues) AS queue
            WHERE ended_at IS NULL AND seen_at >= statement_timestamp() - make_interval(secs => %s)
            GROUP BY queue ORDER BY queue
            """,
            [gone_after()],
        )
        return dict(cursor.fetchall())


@dataclasses.dataclass(frozen=True)
class _Row:
    role: str
    pool: str
    queues: list[str]
    has_ended: bool
    started: float
    """Seconds ago, as is `seen`."""
    seen: float


def _standing(role: str, pool: str, rows: list[_Row]) -> Standing:
    """The standing of one pool; its rows begin with the one that was seen least recently."""
    running = [row for row in rows if not row.has_ended]
    alive = [row for row in running if row.seen <= gone_after()]
    gone = _not_replaced([row for row in running if row.seen > gone_after()], rows)
    return Standing(
        role=role,
        pool=pool,
        alive=len(alive),
        gone=len(gone),
        oldest_seen_seconds=max((round(row.seen, 1) for row in (*alive, *gone)), default=None),
        queues=tuple(sorted({queue for row in alive for queue in row.queues})),
    )


def _not_replaced(lost: list[_Row], rows: list[_Row]) -> list[_Row]:
    """Those of the lost processes, the longest lost first, whose place no later one has taken."""
    started = collections.deque(sorted((row.started for row in rows), reverse=True))
    gone = []
    for row in lost:
        while started and started[0] >= row.seen:
            started.popleft()  # it was started while this one, and so every later one, was still seen
        if started:
            started.popleft()
        else:
            gone.append(row)
    return gone
