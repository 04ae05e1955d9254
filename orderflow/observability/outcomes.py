"""
One line per outcome of a task, in place of Celery's lines.

Celery logs that a task was received and how it ended, as sentences for people. The tasks of the outbox state
how they ended as signals, which name the message and the request; so the sentences about their successes are
left out, as are those about ticks of the schedule. What Celery alone knows (retries, failures, other tasks)
becomes a line with fields: `task.succeeded`, `task.retried`, `task.failed`, `task.ignored` or `task.rejected`.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from typing import Any

from celery import current_app, current_task

LOGGER = "celery.app.trace"

OFTEN = dt.timedelta(minutes=1)
"""Periodic tasks with a shorter interval write no line when they succeed."""

OUTCOMES: Mapping[str, str] = {
    "raised expected": "task.failed",
    "raised unexpected": "task.failed",
    "INTERNAL ERROR": "task.failed",
    "ignored": "task.ignored",
    "rejected": "task.rejected",
}
"""What Celery calls the outcomes other than success and retry."""


class Outcomes(logging.Filter):
    """Gives Celery's records about the end of a task a name and fields, and drops those that signals repeat."""

    def filter(self, record: logging.LogRecord) -> bool:
        told = record.args
        if not isinstance(told, dict) or not isinstance(name := told.get("name"), str):
            return True
        if "runtime" in told:
            if _is_reported(name):
                return False
            outcome, fields = "task.succeeded", {"seconds": told["runtime"]}
        else:
            outcome = OUTCOMES.get(str(told.get("description")), "task.retried")
            fields = {"error": str(told["exc"])} if told.get("exc") else {}
        record.msg, record.args = outcome, ()
        record.signal_fields = {"task": name, "task_id": told.get("id"), **fields, **_ids()}
        return True


def _is_reported(name: str) -> bool:
    """Whether a signal states the success of a task, or nobody wants to read of it."""
    from outbox.periodic import (
        PeriodicTask,
    )  # they need the models; logs are configured before those are loaded
    from outbox.worker.rounds import RoundTask

    task = current_app.tasks.get(name)
    return isinstance(task, RoundTask) or (isinstance(task, PeriodicTask) and task.every < OFTEN)


def _ids() -> dict[str, str]:
    """The ids of the message and of the request that the current task works on; empty if there are none."""
    request: Any = getattr(current_task, "request", None)
    arguments, headers = getattr(request, "kwargs", None), getattr(request, "headers", None)
    found = {
        "message_id": arguments.get("message_id") if isinstance(arguments, Mapping) else None,
        "correlation_id": getattr(request, "x_correlation_id", None)
        or (headers.get("x_correlation_id") if isinstance(headers, Mapping) else None),
    }
    return {name: value for name, value in found.items() if isinstance(value, str)}
