"""
Signals report what has happened, in the past tense: `emit("message.buried", consumer=…)`. Spans report what
takes time: `with span("call", "a provider", CLIENT):`.

No vendor is used here. The project registers receivers that log and count, and a tracer. Without a tracer
`span` returns the same object every time and creates none; code that states attributes asks the span first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

Receiver: TypeAlias = Callable[[str, dict[str, Any]], None]

_receivers: list[Receiver] = []
_logger = logging.getLogger(__name__)


def register(receiver: Receiver) -> None:
    """Call `receiver` with every signal. Registering it again has no effect."""
    if receiver not in _receivers:
        _receivers.append(receiver)


def unregister(receiver: Receiver) -> None:
    """Stop calling `receiver`."""
    _receivers.remove(receiver)


def emit(signal: str, **fields: Any) -> None:
    """Emit a signal. The failure of a receiver is logged and does not affect the caller."""
    for receiver in tuple(_receivers):  # other threads may register or unregister some
        try:
            receiver(signal, fields)
        except Exception:
            _logger.exception("A telemetry receiver failed on %s", signal)


_is_timing = False


def time_queues() -> None:
    """Have this process, and those that are forked from it, state in each message when it was sent."""
    global _is_timing
    _is_timing = True


def is_timing_queues() -> bool:
    """Return whether messages that this process sends state when they were sent."""
    return _is_timing or _tracer is not None


# Spans ------------------------------------------------------------------------------------------------

INTERNAL, CLIENT, PRODUCER, CONSUMER = "internal", "client", "producer", "consumer"
"""The kinds of spans that code here starts, as OpenTelemetry has them."""

Headers: TypeAlias = Mapping[str, Any]
"""The trace context of a message or a request, as the headers `traceparent` and `tracestate`."""

Attributes: TypeAlias = Mapping[str, Any]


class Ids(NamedTuple):
    """The ids of a span, as hexadecimal digits."""

    trace_id: str
    span_id: str


class Span(Protocol):
    """What takes time; it is the current span within its `with` block. False if it is not recorded."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End the span; an exception that leaves the block is its error, unless `fail` has stated another."""
        ...

    def __bool__(self) -> bool: ...

    def set(self, attributes: Attributes, /) -> None:
        """Add attributes: names, ids and numbers, never personal data."""
        ...

    def event(self, name: str, attributes: Attributes | None = None, /, *, at: float | None = None) -> None:
        """Add an event of the span, which happened now, or at this Unix time."""
        ...

    def fail(self, error: BaseException, /) -> None:
        """State the error of the span."""
        ...

    def headers(self) -> dict[str, str]:
        """Return the trace context of what this span causes, empty if nothing is traced."""
        ...


class Tracer(Protocol):
    """Starts the spans of this process; the project registers it with `trace_with`."""

    def span(
        self,
        name: str,
        kind: str,
        *,
        parent: Headers | None,
        links: Sequence[Headers],
        is_root: bool,
        began: float | None,
    ) -> Span: ...

    def ids(self) -> Ids | None: ...


class _Nothing:
    """The span of a process that traces nothing."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __bool__(self) -> bool:
        return False

    def set(self, attributes: Attributes, /) -> None: ...

    def event(self, name: str, attributes: Attributes | None = None, /, *, at: float | None = None) -> None: ...

    def fail(self, error: BaseException, /) -> None: ...

    def headers(self) -> dict[str, str]:
        return {}


NOTHING: Span = _Nothing()
"""What `span` returns while no tracer is registered."""

_tracer: Tracer | None = None


def trace_with(tracer: Tracer | None) -> None:
    """Have `tracer` start all spans of this process from now on; None: trace nothing."""
    global _tracer
    _tracer = tracer


def is_tracing() -> bool:
    """Return whether a tracer is registered."""
    return _tracer is not None


def span(
    operation: str,
    subject: str = "",
    kind: str = INTERNAL,
    *,
    parent: Headers | None = None,
    links: Sequence[Headers] = (),
    is_root: bool = False,
    began: float | None = None,
) -> Span:
    """
    Start the span of an operation on a subject, such as `process` and the name of a task; use it in `with`.

    It is a child of the current span or, if it is given, of the span that `parent` names, unless it `is_root`.
    It began now or at the Unix time `began`. Text that comes from outside belongs into events and errors, which
    are redacted.
    """
    if _tracer is None:
        return NOTHING
    name = f"{operation} {subject}" if subject else operation
    return _tracer.span(name, kind, parent=parent, links=links, is_root=is_root, began=began)


def ids() -> Ids | None:
    """Return the ids of the current span, for log lines and error reports; None if there is none."""
    return _tracer.ids() if _tracer is not None else None
