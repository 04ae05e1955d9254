"""
Formats log records as lines: one dictionary per record, redacted, with the ids of the current work.

Workers write ten lines per order. structlog's formatter runs its processors over a copy of each record,
which took three times as long; its loggers still work, as does its renderer for people.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Callable
from typing import Any

from orderflow.observability import redaction
from outbox import context, telemetry

SIGNAL = "signal_fields"
"""The attribute of a record that holds the fields of a signal."""

Render = Callable[[dict[str, Any]], str]


class Lines(logging.Formatter):
    """A formatter that renders a record as one redacted line."""

    def __init__(self, render: Render) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        event: dict[str, Any] = redaction.redacted(event_of(record))
        if not isinstance(record.msg, dict):
            event["timestamp"] = timestamp(record.created)  # ours: it is not searched for phone numbers
            add_span(event)
        return self._render(event)

    def formatException(self, ei: Any) -> str:
        return super().formatException(ei).rstrip("\n")


_formatter = logging.Formatter()


def event_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what is written of a record besides its time, not redacted yet."""
    if isinstance(record.msg, dict):  # by a logger of structlog, whose processors have run
        return dict(record.msg)
    fields = getattr(record, SIGNAL, None)
    event = {} if fields is None else {**fields}
    event["event"] = record.getMessage()
    event["level"] = record.levelname.lower()
    event["logger"] = record.name
    add_context(event)
    if record.exc_info:
        event["exception"] = _formatter.formatException(record.exc_info)
    if record.stack_info:
        event["stack"] = _formatter.formatStack(record.stack_info)
    return event


def timestamp(seconds: float) -> str:
    """Return a time in UTC as ISO 8601 has it."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def add_context(event: Any) -> None:
    """Add the request, the message and the task that a line belongs to."""
    work = context.current_or_none()
    if work is not None:
        event.setdefault("correlation_id", work.correlation_id)
        if work.causation_id:
            event.setdefault("message_id", work.causation_id)
        if work.task:
            event.setdefault("task", work.task)


def add_span(event: Any) -> None:
    """Add the ids of the current span."""
    if (ids := telemetry.ids()) is not None:
        event["trace_id"], event["span_id"] = ids


def to_json(event: dict[str, Any]) -> str:
    """Return a line for machines. Redacted events contain only texts, numbers, times and lists of them."""
    return _encode(event)


def _plain(value: Any) -> Any:
    """What JSON has no form for: spans are seconds, as in all fields; the rest is text."""
    return value.total_seconds() if isinstance(value, dt.timedelta) else str(value)


_encode = json.JSONEncoder(default=_plain).encode
