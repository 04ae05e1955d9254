"""
Traces: the spans of `outbox.telemetry` and of HTTP requests, exported by OTLP.

Only this module, `trace_export` and `trace_encoding` import OpenTelemetry, and only processes that trace import
them; `trace_processes` decides which and when. What leaves the process has passed the redaction.

Spans wait until the first span of their process in their trace (a request, a try of a task) has ended, and are
exported together: if the process is killed, no child is without its parent.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from django.conf import settings
from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from orderflow.observability import redaction, trace_export
from outbox import telemetry
from outbox.telemetry import Headers, Ids

KINDS = {
    telemetry.INTERNAL: SpanKind.INTERNAL,
    telemetry.CLIENT: SpanKind.CLIENT,
    telemetry.PRODUCER: SpanKind.PRODUCER,
    telemetry.CONSUMER: SpanKind.CONSUMER,
}
PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
MEMBER = "outbox"
CREATOR = re.compile(rf"(?:^|,)\s*{MEMBER}=([0-9a-f]{{16}})", re.ASCII)
"""The member of `tracestate` that names the span in which a message was created."""

ANCHOR = otel_context.create_key("anchor")
"""The key in OpenTelemetry's context of the span that is the parent of all that the current work causes."""

ROUTINE = frozenset(
    {
        "delivery.finished",
        "notification.sent",
        "order.moved",
        "provider.called",
        "relay.batch_settled",
        "relay.published",
        "step.begun",
        "step.finished",
        "step.skipped",
    }
)
"""Signals that say no more than the span in which they are emitted."""

FLUSHED_WITHIN = 2.0
"""Seconds for which a process that ends waits for its spans to be exported."""


class Span:
    """A span of OpenTelemetry as `telemetry.Span`."""

    __slots__ = ("_context", "_is_recording", "_must_fail", "_span", "_token")

    def __init__(self, span: otel.Span, context: otel_context.Context) -> None:
        self._span, self._is_recording, self._must_fail = span, span.is_recording(), True
        self._context = otel.set_span_in_context(span, context)

    def __enter__(self) -> Self:
        self._token = otel_context.attach(self._context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        otel_context.detach(self._token)
        if self._is_recording:
            if error is not None and self._must_fail:
                self.fail(error)
            self._span.end()

    def __bool__(self) -> bool:
        return self._is_recording

    def set(self, attributes: Mapping[str, Any], /) -> None:
        if self._is_recording:
            self._span.set_attributes({name: _value(given) for name, given in attributes.items()})

    def event(
        self, name: str, attributes: Mapping[str, Any] | None = None, /, *, at: float | None = None
    ) -> None:
        if self._is_recording:
            known = {key: _value(given) for key, given in (attributes or {}).items() if given is not None}
            self._span.add_event(name, redaction.redacted(known), _nanoseconds(at))

    def fail(self, error: BaseException, /) -> None:
        self._must_fail = False
        if self._is_recording:
            kind, text = type(error).__name__, redaction.redacted_text(str(error))
            self._span.set_attribute("error.type", kind)
            self._span.set_status(Status(StatusCode.ERROR, f"{kind}: {text}"))
            self._span.add_event("exception", {"exception.type": kind, "exception.message": text})

    def headers(self) -> dict[str, str]:
        own = self._span.get_span_context()
        anchor = self._context.get(ANCHOR) or own
        assert isinstance(anchor, SpanContext)
        flags = f"{int(own.trace_flags) & TraceFlags.SAMPLED:02x}"
        return {
            "traceparent": f"00-{own.trace_id:032x}-{anchor.span_id:016x}-{flags}",
            "tracestate": f"{MEMBER}={own.span_id:016x}",
        }


def _value(given: Any) -> AttributeValue:
    return given if isinstance(given, str | bool | int | float) else redaction.redacted_text(str(given))


def _nanoseconds(at: float | None) -> int | None:
    return None if at is None else int(at * 1e9)


class Tracer:
    """Starts spans for `outbox.telemetry` and adds its signals to them as events."""

    def __init__(self, provider: TracerProvider) -> None:
        self._start = provider.get_tracer("orderflow").start_span

    def span(
        self,
        name: str,
        kind: str,
        *,
        parent: Headers | None,
        links: Sequence[Headers],
        is_root: bool,
        began: float | None,
    ) -> Span:
        context = otel_context.Context() if is_root else otel_context.get_current()
        if parent is not None:
            context = _anchored(otel_context.Context(), _parent(parent))
        found = [Link(creator) for each in links if (creator := _creator(each))] if links else ()
        span = self._start(name, context, KINDS[kind], None, found, _nanoseconds(began))
        if ANCHOR not in context:
            # A span of OpenTelemetry's own, such as that of a request, or this one.
            current = otel.get_current_span(context).get_span_context()
            context = _with_anchor(context, current if current.is_valid else span.get_span_context())
        return Span(span, context)

    def ids(self) -> Ids | None:
        """Return the ids of the current span."""
        found = otel.get_current_span().get_span_context()
        return Ids(f"{found.trace_id:032x}", f"{found.span_id:016x}") if found.is_valid else None


def add_event(signal: str, fields: dict[str, Any]) -> None:
    """Add a signal to the current span."""
    span = otel.get_current_span()
    if signal not in ROUTINE and span.is_recording():
        known = {name: _value(value) for name, value in fields.items() if value is not None}
        span.add_event(signal, redaction.redacted(known))


def _anchored(context: otel_context.Context, parent: SpanContext | None) -> otel_context.Context:
    if parent is None:
        return context
    return _with_anchor(otel.set_span_in_context(NonRecordingSpan(parent), context), parent)


def _with_anchor(context: otel_context.Context, anchor: SpanContext) -> otel_context.Context:
    return otel_context.set_value(ANCHOR, anchor, context)


def _parent(headers: Headers) -> SpanContext | None:
    """The span that `traceparent` names, if it is well formed (https://www.w3.org/TR/trace-context/)."""
    found = PARENT.fullmatch(str(headers.get("traceparent", "")))
    return _span_context(found[1], found[2], found[3]) if found else None


def _creator(headers: Headers) -> SpanContext | None:
    """The span in which a message was created."""
    found = PARENT.fullmatch(str(headers.get("traceparent", "")))
    if not found:
        return None
    creator = CREATOR.search(str(headers.get("tracestate", "")))
    return _span_context(found[1], creator[1] if creator else found[2], found[3])


def _span_context(trace_id: str, span_id: str, flags: str) -> SpanContext | None:
    context = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
    return context if context.is_valid else None


# The SDK of this process ------------------------------------------------------------------------------


class Sdk:
    """OpenTelemetry's SDK in this process."""

    def __init__(self, role: str) -> None:
        warn = trace_export.Warn()
        trace_export.tame(warn)
        self.provider = TracerProvider(resource=_resource(role), shutdown_on_exit=False)
        reporting = trace_export.Reporting(trace_export.exporter(), warn)
        self.provider.add_span_processor(trace_export.WholeFamilies(BatchSpanProcessor(reporting)))
        self.tracer = Tracer(self.provider)

    def end(self) -> None:
        """Export what has ended, but do not wait for long."""
        flushing = threading.Thread(target=self.provider.shutdown, name="flush-spans", daemon=True)
        flushing.start()
        flushing.join(FLUSHED_WITHIN)


def _resource(role: str) -> Resource:
    """What the spans of this process say of it; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win."""
    given: dict[str, AttributeValue] = {
        "service.name": f"orderflow-{role}",
        "service.namespace": "orderflow",
        "service.instance.id": f"{os.uname().nodename}:{os.getpid()}",
        "deployment.environment.name": settings.ENVIRONMENT,
        "process.pid": os.getpid(),
    }
    if settings.RELEASE:
        given["service.version"] = settings.RELEASE
    return Resource.create().merge(Resource(given)).merge(OTELResourceDetector().detect())


class OfThisProcess(otel.TracerProvider):
    """The tracers of OpenTelemetry's middleware: those of the process that uses them, also after a fork."""

    def __init__(self, provider: Callable[[], TracerProvider]) -> None:
        self._provider = provider

    def get_tracer(self, name: str, *args: Any, **options: Any) -> otel.Tracer:  # type: ignore[override]
        return _Delegating(lambda: self._provider().get_tracer(name, *args, **options))


class _Delegating(otel.Tracer):
    def __init__(self, tracer: Callable[[], otel.Tracer]) -> None:
        self._tracer = tracer

    def start_span(self, *args: Any, **options: Any) -> otel.Span:
        return self._tracer().start_span(*args, **options)

    def start_as_current_span(self, *args: Any, **options: Any) -> Any:
        return self._tracer().start_as_current_span(*args, **options)


def instrument_django(provider: Callable[[], TracerProvider], *, position: int, without: Sequence[str]) -> None:
    """Trace requests by OpenTelemetry's middleware, at this position among ours, except these paths."""
    from opentelemetry.instrumentation.django import DjangoInstrumentor

    DjangoInstrumentor().instrument(
        tracer_provider=OfThisProcess(provider), middleware_position=position, excluded_urls=",".join(without)
    )
