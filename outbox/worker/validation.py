"""
Validates messages from the broker before anything else is done with them.

Anybody who may write to the broker may write anything, and other programs do so by mistake. A message that
passes these checks cannot end a worker's main process or a child, and it can be stored in the database.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from typing import Any

from celery.exceptions import InvalidTaskError

from outbox.database import storable
from outbox.worker.decompression import LARGEST_BODY, TooLarge
from outbox.worker.rounds import RoundTask

LARGEST_COUNT = 2**31 - 1

ENCODINGS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "binary"})
"""Other names are Python codecs, some of which decompress their input."""

TEXTS = (
    *("id", "task", "shadow", "lang", "root_id", "parent_id", "group", "origin", "argsrepr", "kwargsrepr"),
    *("eta", "expires", "workflow", "came_back", "message_id", "x_correlation_id"),
    *("traceparent", "tracestate", "sentry-trace", "baggage"),
)
"""Headers that must be texts if they are present; see Celery's message protocol, and `preparing`."""

COUNTS = ("retries", "generation", "redeliveries", "group_index", "replaced_task_nesting")
"""Headers that must be integers; some brokers transmit them as texts."""


def check(message: Any, tasks: Mapping[str, Any]) -> None:
    """
    Check that Celery can make a request of the message and that the task, if it is one of `tasks`, can run it.

    Raises:
        InvalidTaskError: if the message is invalid.
        Exception: whatever decoding its body raises.
    """
    headers = message.headers
    if not isinstance(headers, Mapping):
        raise InvalidTaskError("the message has no headers")
    for name in ("task", "id"):
        if not isinstance(headers.get(name), str):
            raise InvalidTaskError(f"the message has no header {name!r}")
    _check_headers(headers)
    args, kwargs, options = contents(message)
    _check_options(options)
    if isinstance(tasks.get(headers["task"]), RoundTask):
        _check_arguments(args, kwargs)


def contents(message: Any) -> tuple[Any, Any, Any]:
    """
    Return the arguments, keyword arguments and options in the body of a message.

    Raises:
        InvalidTaskError: if the body is invalid or too large.
        Exception: whatever decoding its body raises.
    """
    size = len(message.body) if isinstance(message.body, str | bytes | bytearray | memoryview) else 0
    if size > LARGEST_BODY:
        raise TooLarge(f"the body has {size} bytes; the limit is {LARGEST_BODY}")
    if str(message.content_encoding or "utf-8").lower() not in ENCODINGS:
        raise InvalidTaskError("the body has an encoding that is not supported")
    body = message.payload
    if not isinstance(body, list | tuple) or len(body) != 3:
        raise InvalidTaskError("the body is not a list of arguments, keyword arguments and options")
    args, kwargs, options = body
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        raise InvalidTaskError("the arguments are not a list and a mapping")
    if not isinstance(options, dict | None):
        raise InvalidTaskError("the options of the task are not a mapping")
    return args, kwargs, options


def _check_headers(headers: Mapping[str, Any]) -> None:
    for name in TEXTS:
        value = headers.get(name)
        if value is not None and not (type(value) is str and storable.is_text(value)):
            raise InvalidTaskError(f"the header {name!r} is not a text that can be stored")
    for name in COUNTS:
        if not _is_count(headers.get(name)):
            raise InvalidTaskError(f"the header {name!r} is not an integer")
    if not _is_span(headers.get("wait_seconds")):
        raise InvalidTaskError("the header 'wait_seconds' is not a duration")
    limits = headers.get("timelimit")
    if limits and not (isinstance(limits, list | tuple) and len(limits) == 2 and all(map(_is_span, limits))):
        raise InvalidTaskError("the time limits are not a pair of numbers")
    for name, kind in (("stamps", Mapping), ("stamped_headers", list | tuple)):
        if not isinstance(headers.get(name), kind | None):  # type: ignore[operator]  # of two classes
            raise InvalidTaskError(f"the header {name!r} has the wrong type")


def _check_options(options: Mapping[str, Any] | None) -> None:
    for name in ("callbacks", "errbacks", "chain"):
        tasks = (options or {}).get(name)
        if tasks is not None and not (isinstance(tasks, list | tuple) and all(map(_is_signature, tasks))):
            raise InvalidTaskError(f"the {name} of the task are not a list of tasks")
    chord = (options or {}).get("chord")
    if chord is not None and not _is_signature(chord):
        raise InvalidTaskError("the chord of the task is not a task")


def _check_arguments(args: Any, kwargs: Mapping[str, Any]) -> None:
    """Check the arguments of a `RoundTask`, which takes ids and stores them."""
    if not storable.is_storable([list(args), dict(kwargs)]):
        raise InvalidTaskError(
            "the arguments contain values that cannot be stored, such as NaN or NUL characters"
        )
    message_id = kwargs.get("message_id")
    try:
        known = isinstance(message_id, str) and str(uuid.UUID(message_id)) == message_id.lower()
    except ValueError:
        known = False
    if not known:
        raise InvalidTaskError("the argument 'message_id' is not a message id")


def _is_count(value: Any) -> bool:
    if isinstance(value, str):
        return value == "" or (value.isascii() and value.isdecimal() and len(value) < 10)
    return value is None or (type(value) is int and 0 <= value <= LARGEST_COUNT)


def _is_span(value: Any) -> bool:
    if value is None:
        return True
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= LARGEST_COUNT and math.isfinite(value)


def _is_signature(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("task"), str)
