"""The rows of tasks: how an attempt begins, succeeds or fails. Nothing here needs the tasks framework."""

from __future__ import annotations

import json
import uuid
from typing import Any

from django.db import connection
from django.db.models import F, Func, Value
from django.db.models.functions import Coalesce, Now

from outbox.database import storable
from outbox.models import Attempt, DeadLetter, EnqueuedTask
from outbox.resilience import Permanent

MOST_ERRORS = 20
"""Failed attempts of which a task's row keeps the error, the latest ones."""

LONGEST_WORKER = 200
"""Characters of a worker's name; see the model."""


class NoSuchTask(Permanent):
    """The row of the task is gone, so nobody knows the arguments."""


class Exited(Exception):
    """The task tried to end the process that runs it."""


class NotStorable(Permanent):
    """The task has run, and its return value is no JSON that can be stored. Another attempt would not help."""


def begin(message_id: str, *, worker: str) -> EnqueuedTask | None:
    """
    Note that an attempt begins, and return the task; None if an earlier one has succeeded.

    Raises:
        NoSuchTask: if there is no such row.
    """
    task = EnqueuedTask.objects.filter(pk=message_id)
    began = task.exclude(status=EnqueuedTask.Status.SUCCESSFUL).update(
        status=EnqueuedTask.Status.RUNNING,
        started_at=Coalesce(F("started_at"), Now()),
        last_attempted_at=Now(),
        worker_ids=Func(
            F("worker_ids"), Value(storable.text(worker, longest=LONGEST_WORKER)), function="array_append"
        ),
    )
    if began:
        return task.get()
    if task.exists():
        return None
    raise NoSuchTask(f"there is no row of the task {message_id}")


def succeed(message_id: str, return_value: Any) -> bool:
    """Note that an attempt has succeeded; False if another one has before."""
    task = EnqueuedTask.objects.filter(pk=message_id).exclude(status=EnqueuedTask.Status.SUCCESSFUL)
    return bool(
        task.update(status=EnqueuedTask.Status.SUCCESSFUL, finished_at=Now(), return_value=return_value)
    )


FAIL = f"""
UPDATE {EnqueuedTask._meta.db_table}
SET status = 'READY',
    errors = CASE WHEN jsonb_array_length(errors) < %(most)s THEN errors ELSE errors - 0 END || %(new)s::jsonb
WHERE message_id = %(id)s AND status <> 'SUCCESSFUL'
"""  # noqa: S608 - our own table


def fail(message_id: str, error: BaseException, outcome: str) -> None:
    """Note that an attempt has ended without success. One that only waits keeps no error."""
    entry = [] if outcome == Attempt.Outcome.WAITED else [described(error, outcome)]
    with connection.cursor() as cursor:
        cursor.execute(FAIL, {"id": message_id, "most": MOST_ERRORS, "new": json.dumps(entry)})


def described(error: BaseException, outcome: str) -> dict[str, str]:
    """An error as rows keep it; of one that only wraps what the task has raised, that."""
    if isinstance(error, Exited | NotStorable) and error.__cause__:
        error = error.__cause__
    kind = type(error)
    return {
        "exception_class": storable.text(f"{kind.__module__}.{kind.__qualname__}"),
        "traceback": storable.traceback(error),
        "outcome": str(outcome),
    }


def given_up(message_id: uuid.UUID) -> DeadLetter | None:
    """The dead letter that says that the task has failed; None if it has not, or is being replayed."""
    newest = DeadLetter.objects.filter(message_id=message_id).order_by("-pk").first()
    if newest and newest.resolution in (DeadLetter.Resolution.OPEN, DeadLetter.Resolution.DISCARDED):
        return newest
    return None
