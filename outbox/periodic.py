"""
Periodic tasks on beat's schedule, and the rows that record when each one was last done.

Ticks do not expire, because the clocks of the sender and of the receiver may differ by a day. Instead, each
task claims its row by the database's clock. Of many queued ticks the first one does the work, and each of the
others costs one statement. The rows also prove that the tasks run: `outbox_status`, `/healthz`, `verify` and
`check --database default` read them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from celery import Task, current_app, shared_task
from django.db import DatabaseError, connection

from outbox import telemetry
from outbox.database import storable
from outbox.models import PeriodicRun

SLACK = dt.timedelta(seconds=60)
"""A task is late this long after two missed ticks. Deployments and restarts take that long."""

LONGEST_ERROR = 500
"""Maximum length of a stored error, in characters."""


class PeriodicTask(Task):
    """
    The base of tasks on beat's schedule. Runs at most once in half of `every`, however many ticks arrive.

    The limit is half the interval because ticks arrive a little earlier or later than planned. A direct call of
    the function always runs.
    """

    abstract = True
    acks_late = False
    ignore_result = True

    every: ClassVar[dt.timedelta]
    """The interval on the schedule."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.request.called_directly:
            return self.run(*args, **kwargs)
        if not begin(self.name, every=self.every):
            return None
        try:
            result = self.run(*args, **kwargs)
        except Exception as error:
            _record_failure(self.name, error)
            raise
        end(self.name)
        return result


def task(*, every: dt.timedelta, **options: Any) -> Callable[[Callable[..., Any]], PeriodicTask]:
    """Make the decorated function a periodic task; `options` are those of `shared_task`."""
    made: Any = shared_task
    decorate: Callable[[Callable[..., Any]], PeriodicTask] = made(base=PeriodicTask, every=every, **options)
    return decorate


def begin(name: str, *, every: dt.timedelta) -> bool:
    """
    Claim the run that is due now; return False if the last one was less than half of `every` ago.

    A run in the future is ignored, because it means that the database's clock was set back. One of two
    concurrent claims waits for the other's row lock, so the statement uses `clock_timestamp()`.
    """
    values: dict[str, Any] = {"name": name, "gap": every / 2}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO outbox_periodicrun AS run (name, first_began_at, last_began_at, last_error)
            VALUES (%(name)s, clock_timestamp(), clock_timestamp(), '')
            ON CONFLICT (name) DO UPDATE SET last_began_at = clock_timestamp()
            WHERE greatest(run.last_began_at, run.last_ended_at)
                  NOT BETWEEN clock_timestamp() - %(gap)s AND clock_timestamp()
            """,
            values,
        )
        return cursor.rowcount == 1


def end(name: str) -> None:
    """Record that the task is done."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_periodicrun SET last_ended_at = statement_timestamp(), last_error = ''"
            " WHERE name = %s",
            [name],
        )


def _record_failure(name: str, error: Exception) -> None:
    """Store the error if the database is available. Celery gets the error itself."""
    telemetry.emit("periodic_task.failed", task=name, error=repr(error))
    with contextlib.suppress(DatabaseError):
        PeriodicRun.objects.filter(name=name).update(
            last_error=storable.described(error, longest=LONGEST_ERROR)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """When a periodic task was last done, by the database's clock. `seconds_ago` is None if never."""

    name: str
    every: dt.timedelta
    seconds_ago: float | None
    is_late: bool
    error: str

    def as_json(self) -> dict[str, Any]:
        """Return the standing as plain data."""
        return dataclasses.asdict(self) | {"every": self.every.total_seconds(), "says": str(self)}

    def __str__(self) -> str:
        done = "never done" if self.seconds_ago is None else f"done {self.seconds_ago:g} s ago"
        late = f", late: it is due every {self.every.total_seconds():g} s" if self.is_late else ""
        return done + late + (f", fails with {self.error}" if self.error else "")


STANDINGS = """
WITH expected AS (
    SELECT * FROM unnest(%(names)s::text[], %(patience)s::interval[]) AS expected (name, patience)
), in_use AS (
    SELECT coalesce(
        (SELECT min(first_began_at) FROM outbox_periodicrun),
        (SELECT created_at FROM outbox_outboxmessage ORDER BY id LIMIT 1)
    ) AS since
), standing AS (
    SELECT expected.name, coalesce(run.last_error, '') AS last_error,
        extract(epoch FROM statement_timestamp() - run.last_ended_at)::float8 AS seconds_ago,
        coalesce(
            coalesce(run.last_ended_at, run.first_began_at, in_use.since)
            NOT BETWEEN statement_timestamp() - expected.patience AND clock_timestamp(),
            FALSE
        ) AS is_late
    FROM expected CROSS JOIN in_use LEFT JOIN outbox_periodicrun AS run ON run.name = expected.name
)
"""
"""A task that was never done is late once the system has been in use for longer than the allowed time. Use
begins with the first periodic task or, if none ever ran, with the oldest message."""


RUNS = f"{STANDINGS} SELECT name, seconds_ago, is_late, last_error FROM standing ORDER BY name"  # noqa: S608
"""What `standings_of` needs, for a statement that reads more than that. Its parameters are `expected()`."""


def standings() -> list[Standing]:
    """Return the standing of each periodic task, ordered by name."""
    with connection.cursor() as cursor:
        cursor.execute(RUNS, expected())
        return standings_of(cursor.fetchall())


def standings_of(runs: Iterable[Sequence[Any]]) -> list[Standing]:
    """Return the standing of each periodic task in the rows of `RUNS`."""
    intervals = {task.name: task.every for task in tasks()}
    return [
        Standing(
            name=name,
            every=intervals[name],
            seconds_ago=None if ago is None else round(ago, 1),
            is_late=is_late,
            error=error,
        )
        for name, ago, is_late, error in runs
    ]


def expected() -> dict[str, Any]:
    """Return the parameters of `STANDINGS`: the expected tasks, and after what time each one is late."""
    known = tasks()
    return {"names": [task.name for task in known], "patience": [2 * task.every + SLACK for task in known]}


def tasks() -> list[PeriodicTask]:
    """Return all periodic tasks of the installed apps."""
    return [task for task in current_app.tasks.values() if isinstance(task, PeriodicTask)]
