"""Running a task in a worker, and saying so: Django's signals, in the order in which they are documented."""

from __future__ import annotations

from typing import Any

from django.dispatch import Signal

from outbox.django_tasks import records, results
from outbox.django_tasks.library import TaskContext, TaskResult, TaskResultStatus, task_finished, task_started


def run(message_id: str, *, worker: str) -> bool:
    """
    Call the function of a task and keep what it returns; False if that was done before.

    Raises:
        Exception: whatever the function raises.
        outbox.django_tasks.records.Exited: if it raised SystemExit.
        outbox.django_tasks.records.NotStorable: if its return value is no JSON.
        outbox.django_tasks.records.NoSuchTask: if its row is gone.
        ImportError: if its code is gone.
    """
    row = records.begin(message_id, worker=worker)
    if row is None:
        return False
    result = results.of(row)
    _send(task_started, result)
    value = _storable(_called(result))
    if not records.succeed(message_id, value):
        return False
    _send(task_finished, results.get(message_id))
    return True


def announce_failure(message_id: str) -> None:
    """Say that the task was given up, once its dead letter is committed."""
    result = results.get(message_id)
    if result.status == TaskResultStatus.FAILED:
        _send(task_finished, result)


def _called(result: TaskResult) -> Any:
    first: tuple[TaskContext, ...] = (TaskContext(task_result=result),) if result.task.takes_context else ()
    try:
        return result.task.call(*first, *result.args, **result.kwargs)
    except SystemExit as ended:
        if isinstance(ended.code, int) and ended.code < 0:
            raise  # a signal: the worker ends this process
        raise records.Exited(f"the task raised SystemExit: {ended.code}") from ended


def _storable(value: Any) -> Any:
    try:
        return results.storable(value)
    except (TypeError, ValueError) as error:
        raise records.NotStorable(f"the return value cannot be stored: {error}") from error


def _send(signal: Signal, result: TaskResult) -> None:
    """A receiver that fails is logged by Django. It must not undo, or repeat, what the task has done."""
    signal.send_robust(type(result.task.get_backend()), task_result=result)
