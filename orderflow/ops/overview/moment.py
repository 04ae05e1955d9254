"""
One moment in one statement: the time, the oldest due message, the processes, the periodic tasks, the verdict.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

from django.db import connection

from outbox import periodic, processes, status
from outbox.models import Verification

VERDICT = """
    SELECT ran_at, id, passed, findings, extract(epoch FROM statement_timestamp() - ran_at) AS seconds_ago
    FROM outbox_verification ORDER BY ran_at DESC, id DESC LIMIT 1
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """What was read. What the reader may not view is None."""

    at: dt.datetime
    oldest_due_seconds: float
    was_restored: bool
    """Whether a restore of the database is recorded."""
    running: Sequence[processes.Standing] | None
    tasks: Sequence[periodic.Standing] | None
    verification: Verification | None
    verified_seconds_ago: float | None


def read(*, machinery: bool, verifications: bool) -> Moment:
    """Read it. One query."""
    heartbeats, runs, verdicts = (
        _as_json(query) if is_wanted else "NULL"
        for query, is_wanted in (
            (processes.HEARTBEATS, machinery),
            (periodic.RUNS, machinery or verifications),
            (VERDICT, verifications),
        )
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT statement_timestamp(), ({status.OLDEST_DUE}), EXISTS (SELECT FROM outbox_restore),"  # noqa: S608
            f" {heartbeats}, {runs}, {verdicts}",
            periodic.expected(),
        )
        at, oldest, was_restored, heartbeats, runs, verdicts = cursor.fetchone()
    run = next(iter(_rows(verdicts)), None)
    return Moment(
        at=at,
        oldest_due_seconds=round(float(oldest or 0), 1),
        was_restored=was_restored,
        running=processes.standings_of(map(_values, _rows(heartbeats))) if machinery else None,
        tasks=periodic.standings_of(map(_values, _rows(runs))) if machinery or verifications else None,
        verification=Verification(**{name: run[name] for name in ("id", "passed", "findings")})
        if run
        else None,
        verified_seconds_ago=run["seconds_ago"] if run else None,
    )


def _as_json(query: str) -> str:
    """A column with all rows of a query, as JSON text; NULL if there are none."""
    return f"(SELECT json_agg(part)::text FROM ({query}) AS part)"  # noqa: S608 - our own queries


def _rows(text: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text or "[]")
    return found


def _values(row: dict[str, Any]) -> list[Any]:
    return list(row.values())
