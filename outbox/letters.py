"""
Making a dead letter of a message as a broker hands it out, however little of it can be read.

Used in the main process of workers, by `worker` and `topology`: what is done here closes its database
session after each use, because children are forked from that process.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from celery.exceptions import InvalidTaskError
from django.db import InterfaceError, OperationalError, connection, connections, transaction

from outbox import dead_letters
from outbox.consumer import ConsumerTask
from outbox.models import DeadLetter

CONSUMER = "outbox.worker"
"""Whom a letter names whose message does not say which task it is for."""

BODY_KEPT = 16 * 1024
"""Characters of an unreadable body that its letter keeps."""

HEADER_KEPT = 2 * 1024
"""Characters of one header that a letter keeps."""

logger = logging.getLogger(__name__)


def check_readable(message: Any) -> None:
    """
    Check that Celery can make a request of the message.

    Raises:
        InvalidTaskError: if it cannot.
        Exception: whatever decoding its body raises.
    """
    headers = message.headers
    if not isinstance(headers, Mapping):
        raise InvalidTaskError("the message has no headers")
    for name in ("task", "id"):
        if not isinstance(headers.get(name), str):
            raise InvalidTaskError(f"the message has no header {name!r}")
    body = message.payload
    if not isinstance(body, list | tuple) or len(body) != 3:
        raise InvalidTaskError("the body is not a list of arguments, keyword arguments and options")
    args, kwargs, options = body
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        raise InvalidTaskError("the arguments are not a list and a mapping")
    if not isinstance(options, dict | None):
        raise InvalidTaskError("the options of the task are not a mapping")
    limits = headers.get("timelimit")
    if limits and (not isinstance(limits, list | tuple) or len(limits) != 2):
        raise InvalidTaskError("the time limits are not a pair")


def failure_of(
    message: Any,
    error: BaseException,
    *,
    worker: str = "",
    source: DeadLetter.Source = DeadLetter.Source.WORKER,
    attempts: int = 1,
) -> dead_letters.Failure:
    """Describe what failed as far as its message can be read."""
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    task = headers.get("task") if isinstance(headers.get("task"), str) else ""
    kwargs = _kwargs(message)
    body = _text(message.body)
    readable: dict[str, Any] = {"task": task, "kwargs": kwargs} if kwargs is not None else {"body": body}
    return dead_letters.Failure.of(
        error,
        source=source,
        consumer=task or CONSUMER,
        message_id=str(headers.get("message_id") or (kwargs or {}).get("message_id") or ""),
        key=str((kwargs or {}).get("order_id") or ""),
        workflow=str(headers.get("workflow") or ""),
        task_id=str(headers.get("id") or ""),
        payload=readable,
        headers={str(name): _short(value) for name, value in headers.items() if value is not None},
        attempts=attempts,
        worker=worker,
        body=f"{type(error).__name__}|{body}",
    )


def bury(failure: dead_letters.Failure, task: Any = None, kwargs: Mapping[str, Any] | None = None) -> None:
    """Bury what failed, and tell its task, if it is known, in the same transaction."""
    with transaction.atomic():
        dead_letters.bury(failure)
        if isinstance(task, ConsumerTask) and task.on_buried:
            type(task).on_buried(**(kwargs or {}))  # type: ignore[misc]


def safely(note: Callable[[], None]) -> bool:
    """
    Note something in the database from the main process; return False if it must be tried again.

    An error that is not the database's own would come back each time. It is logged with its
    traceback and counts as done.
    """
    try:
        note()
    except (OperationalError, InterfaceError):
        logger.exception("The worker could not reach the database to note a failure")
        return False
    except Exception:
        logger.critical("The worker could not note a failure", exc_info=True)
    finally:
        if not connection.in_atomic_block:
            connections.close_all()
    return True


def _kwargs(message: Any) -> dict[str, Any] | None:
    """The keyword arguments of a message, or None if it has none that could be stored."""
    try:
        kwargs = message.payload[1]
        json.dumps(kwargs, allow_nan=False)
    except Exception:
        return None
    return kwargs if isinstance(kwargs, dict) else None


def _text(body: Any) -> str:
    if isinstance(body, str):
        return body[:BODY_KEPT]
    raw = bytes(body or b"")
    try:
        return raw.decode()[:BODY_KEPT]
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw[:BODY_KEPT]).decode()


def _short(value: Any) -> Any:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return str(value)[:HEADER_KEPT]
