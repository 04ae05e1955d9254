"""Rows as results: a task is enqueued, and looked up again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import connection, transaction
from django.utils.module_loading import import_string

from outbox import publisher
from outbox.database.statements import Table
from outbox.django_tasks import records
from outbox.django_tasks.contracts import TaskEnqueued
from outbox.django_tasks.library import (
    Task,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    normalize_json,
)
from outbox.models import Attempt, DeadLetter, EnqueuedTask, OutboxMessage


class NotATask(TypeError):
    """What is found at the path of a task is none."""


class GivenUp(Exception):
    """A task was given up without an exception of its own: its dead letter says why."""


def enqueue(task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
    """
    Write the task and its message, in one statement, in the current transaction.

    Raises:
        TypeError: if an argument is no JSON value.
        ValueError: if an argument is one that PostgreSQL cannot store.
    """
    row = EnqueuedTask(
        task=task.module_path,
        args=storable(list(args)),
        kwargs=storable(dict(kwargs)),
        backend=task.backend,
        queue_name=task.queue_name,
        priority=int(task.priority),
        run_after=task.run_after,
    )
    event = TaskEnqueued(task=row.task, backend=row.backend, queue_name=row.queue_name, priority=row.priority)
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        [message] = publisher.messages([event], not_before=task.run_after)
        row.message_id = message.id
        cursor.execute(
            ENQUEUE_LATER if task.run_after else ENQUEUE,
            {
                "messages": (MESSAGES_LATER if task.run_after else MESSAGES).as_json([message]),
                "tasks": TASKS.as_json([row]),
            },
        )
        [row.enqueued_at] = cursor.fetchone()
    return _result(row, task, None)


MESSAGES, MESSAGES_LATER = Table(OutboxMessage), Table(OutboxMessage, frozenset({"not_before"}))
TASKS = Table(EnqueuedTask)
ENQUEUE, ENQUEUE_LATER = (
    f"""
    WITH message AS ({messages.insert("messages")}), task AS ({TASKS.insert("tasks")} RETURNING enqueued_at)
    SELECT enqueued_at FROM task
    """  # noqa: S608 - our own tables
    for messages in (MESSAGES, MESSAGES_LATER)
)


def storable(value: Any) -> Any:
    """
    The value as plain JSON.

    Raises:
        TypeError: if it is no JSON value.
        ValueError: if it is one that PostgreSQL cannot store: NaN, an infinite number, a NUL character or half
            of a surrogate pair.
    """
    plain = normalize_json(value)
    json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()
    if any("\x00" in text for text in _texts(plain)):
        raise ValueError("PostgreSQL cannot store NUL characters")
    return plain


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def get(result_id: str) -> TaskResult:
    """
    The result with this id, as it stands.

    Raises:
        TaskResultDoesNotExist: if there is none.
    """
    try:
        row = EnqueuedTask.objects.get(pk=uuid.UUID(str(result_id)))
    except (ValueError, EnqueuedTask.DoesNotExist) as missing:
        raise TaskResultDoesNotExist(result_id) from missing
    return of(row)


def of(row: EnqueuedTask) -> TaskResult:
    """
    The result of a row.

    Raises:
        ImportError: if the code of the task is gone.
        NotATask: if something else has taken its place.
    """
    is_over = row.status == EnqueuedTask.Status.SUCCESSFUL
    return _result(row, _task(row), None if is_over else records.given_up(row.message_id))


def _task(row: EnqueuedTask) -> Task:
    task = import_string(row.task)
    if not isinstance(task, Task):
        raise NotATask(f"{row.task} is a {type(task).__name__}, not a task")
    return task.using(
        priority=row.priority, queue_name=row.queue_name, run_after=row.run_after, backend=row.backend
    )


def _result(row: EnqueuedTask, task: Task, given_up: DeadLetter | None) -> TaskResult:
    result: TaskResult = TaskResult(
        task=task,
        id=str(row.message_id),
        status=TaskResultStatus.FAILED if given_up else TaskResultStatus[row.status],
        enqueued_at=row.enqueued_at,
        started_at=row.started_at,
        finished_at=_failed_at(row, given_up) if given_up else row.finished_at,
        last_attempted_at=row.last_attempted_at,
        args=row.args,
        kwargs=row.kwargs,
        backend=row.backend,
        errors=[*_errors(row, given_up)],
        worker_ids=list(row.worker_ids),
    )
    object.__setattr__(result, "_return_value", row.return_value)  # as Django's own backends do
    return result


def _failed_at(row: EnqueuedTask, given_up: DeadLetter) -> Any:
    """One that has failed again has the dead letter that it had."""
    return max(filter(None, [given_up.buried_at, row.last_attempted_at]))


def _errors(row: EnqueuedTask, given_up: DeadLetter | None) -> Iterator[TaskError]:
    for error in row.errors:
        yield TaskError(exception_class_path=error["exception_class"], traceback=error["traceback"])
    if given_up and (not row.errors or row.errors[-1]["outcome"] != Attempt.Outcome.BURIED):
        path = f"{GivenUp.__module__}.{GivenUp.__qualname__}"
        said = f"{given_up.traceback}\n{given_up.error_class}: {given_up.error}\n".lstrip()
        yield TaskError(exception_class_path=path, traceback=said)
