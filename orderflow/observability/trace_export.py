"""
The export of spans by OTLP: redacted, whole per process and trace, and with one warning when it fails.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status
from opentelemetry.util.re import parse_env_headers

from orderflow.observability import redaction, trace_encoding
from orderflow.observability.trace_encoding import Encoded

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


def tame(warn: Warn) -> None:
    """Keep OpenTelemetry's loggers, which write a line for each failed try, from the project's logs."""
    theirs = logging.getLogger("opentelemetry")
    theirs.handlers[:] = [warn]
    theirs.propagate = False
    # Says so of every span that finds the queue full; the exporter has said why it is.
    logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.ERROR)


def exporter() -> SpanExporter:
    """Return the exporter that the settings ask for."""
    # From a file, perhaps; the exporters know the environment only.
    headers = dict(parse_env_headers(settings.OTEL_EXPORTER_OTLP_HEADERS, liberal=True)) or None
    if settings.OTEL_EXPORTER_OTLP_PROTOCOL == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc

        vars(grpc)["encode_spans"] = trace_encoding.encode_spans
        return grpc.OTLPSpanExporter(headers=headers)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

    vars(http)["encode_spans"] = trace_encoding.encode_spans
    return http.OTLPSpanExporter(headers=headers)
