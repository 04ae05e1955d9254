"""
Traces: the spans of `outbox.telemetry` and of HTTP requests, exported by OTLP.

Only this module imports OpenTelemetry, and only processes that trace import this module; `trace_processes`
decides which and when. What leaves the process has passed the redaction.

Spans wait until the first span of their process in their trace (a request, a try of a task) has ended, and are
exported together: if the process is killed, no child is without its parent.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from django.conf import settings
from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.re import parse_env_headers
from opentelemetry.util.types import AttributeValue

from orderflow.observability import redaction, trace_encoding
from orderflow.observability.trace_encoding import Encoded
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

WARNED_EVERY = 600.0
"""Seconds between two warnings that spans cannot be exported. It counts from the first failure."""

OF_REQUESTS = frozenset(
    {
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "url.path",
        "url.scheme",
        "server.address",
        "server.port",
        "error.type",
    }
)
"""The attributes of HTTP requests that are exported: no query strings, no clients' addresses."""

logger = logging.getLogger(__name__)


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


# Export -----------------------------------------------------------------------------------------------


class _Family:
    """The spans of one process in one trace whose first span has not ended."""

    __slots__ = ("ended", "first", "is_over")

    def __init__(self, first: int) -> None:
        self.first = first
        self.ended: list[Encoded] = []
        self.is_over = False


class WholeFamilies(SpanProcessor):
    """Passes spans on when the first span of their process in their trace has ended."""

    def __init__(self, export: BatchSpanProcessor) -> None:
        self._export = export
        self._families: dict[int, _Family] = {}

    def on_start(self, span: SdkSpan, parent_context: otel_context.Context | None = None) -> None:
        own, parent = span.get_span_context().span_id, span.parent
        family = self._families.get(parent.span_id) if parent and not parent.is_remote else None
        self._families[own] = family or _Family(own)

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context
        family = self._families.pop(span.context.span_id, None)
        encoded: Any = Encoded(_clean(span))  # what the queue and the exporter need of a span
        if family is None or family.is_over:
            self._export.on_end(encoded)
            return
        family.ended.append(encoded)
        if family.first == span.context.span_id:
            family.is_over = True
            for each in family.ended:
                self._export.on_end(each)  # type: ignore[arg-type]

    def shutdown(self) -> None:
        self._export.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._export.force_flush(timeout_millis)


def _clean(span: ReadableSpan) -> ReadableSpan:
    """A span as it is exported. Ours are clean; those of requests come from OpenTelemetry's middleware."""
    if span.kind is not SpanKind.SERVER:
        return span
    return ReadableSpan(
        name=redaction.redacted_text(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=redaction.redacted(
            {name: value for name, value in (span.attributes or {}).items() if name in OF_REQUESTS}
        ),
        events=[_clean_event(event) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, redaction.redacted_text(span.status.description or "") or None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _clean_event(event: Any) -> Any:
    known = {name: value for name, value in (event.attributes or {}).items() if name != "exception.stacktrace"}
    return type(event)(event.name, redaction.redacted(known), event.timestamp)


class Reporting(SpanExporter):
    """An exporter that is never retried at the cost of tasks, and whose failures cause one warning."""

    def __init__(self, exporter: SpanExporter, warn: Warn) -> None:
        self._exporter, self._warn = exporter, warn

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._warn.works()
        else:
            self._warn.fails("")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class Warn(logging.Handler):
    """Takes the warnings of OpenTelemetry's own loggers, and writes one of our own instead of one per batch."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._at: float | None = None
        self._has_failed = False
        self._changes = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        self.fails(redaction.redacted_text(record.getMessage()))

    def fails(self, why: str) -> None:
        """Warn that spans are lost, unless that was done a short time ago."""
        with self._changes:
            now = time.monotonic()
            is_known = self._has_failed or (self._at is not None and now - self._at < WARNED_EVERY)
            self._has_failed = True
            if is_known:
                return
            self._at = now
        logger.warning("Spans cannot be exported, and are dropped until they can: %s", why or "no reason given")

    def works(self) -> None:
        """Note that an export has succeeded."""
        if self._has_failed:
            self._has_failed = False
            logger.info("Spans are exported again")


def _tame(warn: Warn) -> None:
    """Keep OpenTelemetry's loggers, which write a line for each failed try, from the project's logs."""
    theirs = logging.getLogger("opentelemetry")
    theirs.handlers[:] = [warn]
    theirs.propagate = False
    # Says so of every span that finds the queue full; the exporter has said why it is.
    logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.ERROR)


def _exporter() -> SpanExporter:
    # From a file, perhaps; the exporters know the environment only.
    headers = dict(parse_env_headers(settings.OTEL_EXPORTER_OTLP_HEADERS, liberal=True)) or None
    if settings.OTEL_EXPORTER_OTLP_PROTOCOL == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc

        vars(grpc)["encode_spans"] = trace_encoding.encode_spans
        return grpc.OTLPSpanExporter(headers=headers)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

    vars(http)["encode_spans"] = trace_encoding.encode_spans
    return http.OTLPSpanExporter(headers=headers)


# The SDK of this process ------------------------------------------------------------------------------


class Sdk:
    """OpenTelemetry's SDK in this process."""

    def __init__(self, role: str) -> None:
        warn = Warn()
        _tame(warn)
        self.provider = TracerProvider(resource=_resource(role), shutdown_on_exit=False)
        self.provider.add_span_processor(WholeFamilies(BatchSpanProcessor(Reporting(_exporter(), warn))))
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
