"""
The spans of a message: created, sent by the relay, processed by its tasks, settled, replayed.

Names, kinds and attributes are those of OpenTelemetry's semantic conventions for messaging, version 1.44
(https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/): `create`, `send`, `process` and
`settle`, each with its destination. The destination of a message in the outbox is the name of its event; that
of a task's message is the task. Decision 0042 has the reasons.

All spans of a message, in whatever process, are children of the span in which its trace began, usually that of
the HTTP request, and not of each other: a span whose process is killed is never exported, and would leave its
children without a parent. Which message caused which is a link. So a message carries, as headers, `traceparent`
(the parent of its spans) and a member of `tracestate` (the span that created it). `Span.headers` returns both.

Without a tracer nothing here does anything.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from celery import Celery
from celery.exceptions import Ignore, Reject, Retry

from outbox import contracts, telemetry
from outbox.context import Context
from outbox.models import Attempt, OutboxMessage
from outbox.telemetry import CLIENT, CONSUMER, NOTHING, PRODUCER, Span

TRACE_HEADERS = ("traceparent", "tracestate", "sentry-trace", "baggage")
"""The headers that carry the trace of a message."""

SENT_AT = "sent_at"
"""The header with the Unix time at which a message was sent to the broker, by the clock of its sender. Only
messages of a process that traces or counts (`telemetry.time_queues`) carry it."""

LONG_WAIT = 0.5
"""Seconds that a message waits in the outbox or in its queue before its span has an event for that."""

OUTBOX = "outbox"
"""The destination of a batch: its messages go to several queues."""


TRACE_PARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
"""A `traceparent`: https://www.w3.org/TR/trace-context/#traceparent-header."""


def recorded(trace: Mapping[str, Any]) -> str:
    """Return the id of a message's trace; empty if it has none, or if it was not sampled."""
    found = TRACE_PARENT.fullmatch(str(trace.get("traceparent", "")))
    return found[1] if found and int(found[3], 16) & 1 else ""


# Created ----------------------------------------------------------------------------------------------


def create(row: OutboxMessage) -> None:
    """Trace the creation of a message, in the row that is about to be written."""
    with telemetry.span("create", row.event_name, PRODUCER) as span:
        if span:
            span.set(_operation("create", row.event_name, row.id, row.correlation_id))
        if headers := span.headers():
            row.trace = headers


def replay(rows: Sequence[OutboxMessage], *, workflow: str) -> None:
    """
    Begin a trace for each message that is replayed, linked to its former one, and store it in the message.

    The relay gives it to the deliveries of this workflow (see `contracts.trace_of`).
    """
    for row in rows:
        former = contracts.trace_of(row.trace, workflow)
        with telemetry.span("create", row.event_name, PRODUCER, links=[former], is_root=True) as span:
            span.set(
                _operation("create", row.event_name, row.id, row.correlation_id)
                | {"outbox.is_replay": True, "outbox.workflow": workflow}
            )
            replays = row.trace.get(contracts.REPLAYS, {}) | {workflow: span.headers()}
        row.trace = row.trace | {contracts.REPLAYS: replays}
    OutboxMessage.objects.bulk_update(rows, ["trace"])


# Sent -------------------------------------------------------------------------------------------------


class Batch:
    """The spans of one batch of the relay: one for the batch, with a link to each message, one per message."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows, self._began = rows, time.time()
        self._traces = [contracts.trace_of(row.trace, row.redelivers) for row in rows]

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """The span of the batch."""
        links = [trace for trace in self._traces if trace]
        with telemetry.span("send", OUTBOX, CLIENT, links=links, is_root=True) as span:
            span.set(_operation("send", OUTBOX) | {"messaging.batch.message_count": len(self._rows)})
            self._batch = span.headers()
            yield

    def settled(self, published: Collection[tuple[uuid.UUID, str]], *, broker_is_down: bool) -> None:
        """
        Trace in each message's own trace what the relay did with it, from its claim on.

        Messages that a lost broker did not accept are claimed again every second, and traced when it is back.
        """
        reasons = _reasons([row.id for row in self._rows if row.redeliveries])
        for row, trace in zip(self._rows, self._traces, strict=True):
            is_published = (row.id, row.redelivers) in published
            if not trace or (broker_is_down and not is_published):
                continue
            with telemetry.span(
                "settle", row.event_name, CLIENT, parent=trace, links=[trace, self._batch], began=self._began
            ) as span:
                if span:
                    span.set(self._settled(row, "published" if is_published else "set aside"))
                    self._explain(span, row, reasons.get(row.id))

    def _settled(self, row: Any, outcome: str) -> dict[str, Any]:
        return _operation("settle", row.event_name, row.id, row.correlation_id) | {
            "outbox.outcome": outcome,
            "outbox.delivery": row.redeliveries + 1,
            "outbox.workflow": row.redelivers,
            "outbox.attempt": row.attempts + 1,
        }

    def _explain(self, span: Span, row: Any, reason: dict[str, Any] | None) -> None:
        """State why the message comes now: it waited for the relay, or it is delivered again."""
        if row.redeliveries:
            span.event("message.redelivered", {"outbox.delivery": row.redeliveries + 1, **(reason or {})})
        elif (waited := self._began - row.created_at.timestamp()) > LONG_WAIT:
            span.event("message.waited", {"outbox.waited_seconds": round(waited, 3)}, at=self._began)


def batch(rows: Sequence[Any]) -> Batch | None:
    """Return the spans of a batch of claimed messages; None if nothing is traced."""
    return Batch(rows) if rows and telemetry.is_tracing() else None


def _reasons(ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, dict[str, Any]]:
    """The last failed attempt of each of these messages, as attributes."""
    if not ids:
        return {}
    last = Attempt.objects.filter(message_id__in=ids).order_by("message_id", "-pk").distinct("message_id")
    return {
        attempt.message_id: {
            "outbox.consumer": attempt.consumer,
            "outbox.outcome": attempt.outcome,
            "error.type": attempt.error_class,
            "outbox.failed_at": attempt.failed_at.isoformat(),
        }
        for attempt in last.only("message_id", "consumer", "outcome", "error_class", "failed_at")
    }


def stamp(headers: dict[str, Any]) -> None:
    """State in the headers of a message when it was sent, if this process traces or times queues."""
    if telemetry.is_timing_queues():
        headers[SENT_AT] = f"{time.time():.3f}"


def stamp_next(chain: Sequence[Mapping[str, Any]] | None) -> None:
    """State when the next task of a chain, which Celery is about to send, was sent."""
    if chain and telemetry.is_timing_queues():
        stamp(chain[-1]["options"].setdefault("headers", {}))


def sent_at(request: Any) -> float | None:
    """Return the Unix time at which a task's message was sent; None if it ran inline or does not state it."""
    sent = request.get(SENT_AT) or (request.headers or {}).get(SENT_AT)
    if not sent or request.get("inline_since") is not None:
        return None
    try:
        return float(sent)
    except (TypeError, ValueError):
        return None  # anybody can write into a queue


# Processed --------------------------------------------------------------------------------------------


def processing(task: Any, kwargs: Mapping[str, Any], work: Context) -> contextlib.AbstractContextManager[Span]:
    """
    Return the span of one try of a task, as a child of the message's trace.

    The caller states the outcome of a success. Here it is `retried` (sent again at once), `waiting` (for
    something else, no attempt spent), `rejected` (handed back to the broker) or `failed` (see `settling`).
    """
    return _processing(task, kwargs, work) if telemetry.is_tracing() else NOTHING


@contextlib.contextmanager
def _processing(task: Any, kwargs: Mapping[str, Any], work: Context) -> Iterator[Span]:
    trace = work.trace
    with telemetry.span("process", task.name, CONSUMER, parent=trace, links=[trace] if trace else ()) as span:
        if span:
            span.set(_processed(task, kwargs, work))
            _explain_wait(span, task.request)
        try:
            yield span
        except Retry as retry:
            _end(span, "retried", retry.exc)
            span.event("message.retried", {"outbox.wait_seconds": retry.when})
            raise
        except Ignore as ignored:
            _end(span, "waiting" if ignored.__cause__ else "stale", ignored.__cause__)
            raise
        except Reject as rejected:
            reason: Any = rejected.args[0] if rejected.args else None
            _end(span, "rejected", reason if isinstance(reason, Exception) else rejected)
            raise
        except BaseException as error:
            _end(span, "failed", error)
            raise


def _processed(task: Any, kwargs: Mapping[str, Any], work: Context) -> dict[str, Any]:
    request = task.request
    delivery = request.delivery_info or {}
    given = _operation("process", task.name, str(kwargs.get("message_id", "")), work.correlation_id)
    given |= {
        "messaging.system": _system(task.app),
        "outbox.queue": str(delivery.get("routing_key") or "").rpartition(".")[2],
        "outbox.workflow": task._header("workflow"),
        "outbox.attempt": _number(request.retries) + 1,
        "outbox.delivery": _number(task._header("generation")) + 1,
        "outbox.task_id": request.id or "",
    }
    if delivery.get("redelivered"):
        given["outbox.is_redelivered"] = True
    if request.get("inline_since") is not None:
        given["outbox.is_inline"] = True
    ids = {name: str(value) for name, value in kwargs.items() if name.endswith("_id") and name != "message_id"}
    return given | {f"outbox.argument.{name}": value for name, value in ids.items()}


def _explain_wait(span: Span, request: Any) -> None:
    """State how long the message has been in its queue, if its sender stated when it sent it."""
    sent = sent_at(request)
    if sent is None:
        return
    waited = round(max(0.0, time.time() - sent), 3)
    span.set({"outbox.queue_seconds": waited})
    if waited > LONG_WAIT:
        span.event("message.sent", {"outbox.queue_seconds": waited}, at=sent)


def _end(span: Span, outcome: str, error: Any) -> None:
    span.set({"outbox.outcome": outcome})
    if isinstance(error, BaseException):
        span.fail(error)


def settling(task: Any, kwargs: Mapping[str, Any]) -> contextlib.AbstractContextManager[Span]:
    """
    Return the span in which a task that has failed postpones or buries its message.

    What it does are events of the span: the signals that it emits.
    """
    return _settling(task, kwargs) if telemetry.is_tracing() else NOTHING


@contextlib.contextmanager
def _settling(task: Any, kwargs: Mapping[str, Any]) -> Iterator[Span]:
    work = task._context(kwargs)
    trace = work.trace
    with telemetry.span("settle", task.name, CLIENT, parent=trace, links=[trace] if trace else ()) as span:
        if span:
            message = str(kwargs.get("message_id", ""))
            span.set(_operation("settle", task.name, message, work.correlation_id))
        yield span


# Attributes -------------------------------------------------------------------------------------------


def _operation(operation: str, destination: str, message: object = "", correlation: str = "") -> dict[str, Any]:
    """The attributes that all spans have."""
    given: dict[str, Any] = {
        "messaging.system": OUTBOX,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": destination,
    }
    if message:
        given["messaging.message.id"] = str(message)
    if correlation:
        given["messaging.message.conversation_id"] = correlation
    return given


def _number(header: object) -> int:
    """The number in a header, which anybody may have written; 0 if it is none."""
    return int(text) if (text := str(header)).isdecimal() and len(text) < 10 else 0


@functools.cache
def _system(app: Celery) -> str:
    """The broker, as the conventions name it."""
    kind = str(app.conf.broker_write_url or "amqp://").partition(":")[0].partition("+")[0]
    return {"rediss": "redis", "amqp": "rabbitmq", "amqps": "rabbitmq", "pyamqp": "rabbitmq"}.get(kind, kind)
