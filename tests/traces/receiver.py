"""A receiver of OTLP, over HTTP and over gRPC, that keeps the spans it gets as plain data."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import gzip
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
ERROR = 2


@dataclasses.dataclass(frozen=True)
class Received:
    """A span as it arrived. Times are Unix seconds; ids are hexadecimal; `parent` is empty for a root."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    began: float
    ended: float
    attributes: dict[str, Any]
    events: list[tuple[str, float, dict[str, Any]]]
    links: list[tuple[str, str]]
    error: str | None
    resource: dict[str, Any]

    @property
    def service(self) -> str:
        return self.resource["service.name"]

    def event(self, name: str) -> dict[str, Any] | None:
        """Return the attributes of the first event of this name."""
        return next((attributes for each, _, attributes in self.events if each == name), None)


class Receiver:
    """What has arrived at a port of this machine."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[messages.ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self._spans: list[Received] = []
        self._lock = threading.Lock()

    def take(self, request: messages.ExportTraceServiceRequest, headers: dict[str, str]) -> None:
        spans = list(_read(request))
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
            self._spans += spans

    @property
    def spans(self) -> list[Received]:
        with self._lock:
            return list(self._spans)

    def traces(self) -> dict[str, list[Received]]:
        """Return all spans by trace, in the order in which they began."""
        found = defaultdict(list)
        for span in sorted(self.spans, key=lambda span: span.began):
            found[span.trace].append(span)
        return dict(found)

    def trace(self, trace_id: str) -> list[Received]:
        return self.traces().get(trace_id, [])

    def document(self, trace_id: str) -> dict[str, Any]:
        """Return a trace as OTLP/JSON (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding)."""
        found = []
        with self._lock:
            requests = [json_format.MessageToDict(request) for request in self.requests]
        for of_process in (each for request in requests for each in request["resourceSpans"]):
            spans = [s for scope in of_process["scopeSpans"] for s in scope["spans"]]
            for span in spans:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = base64.b64decode(span[name]).hex()
            if own := [span for span in spans if span["traceId"] == trace_id]:
                found.append({"resource": of_process["resource"], "scopeSpans": [{"spans": own}]})
        return {"resourceSpans": found}

    def forget(self) -> None:
        with self._lock:
            self._spans.clear()


@contextlib.contextmanager
def over_http(port: int = 0) -> Iterator[Receiver]:
    """Receive over HTTP until the block ends."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            receiver.take(messages.ExportTraceServiceRequest.FromString(body), dict(self.headers))
            answer = messages.ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    server = _Server(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    receiver.port = server.server_port
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # of a process that was killed
            super().handle_error(request, client_address)


@contextlib.contextmanager
def over_grpc() -> Iterator[Receiver]:
    """Receive over gRPC until the block ends."""
    receiver = Receiver()

    class Service(services.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            receiver.take(request, {key.lower(): value for key, value in context.invocation_metadata()})
            return messages.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(4))
    services.add_TraceServiceServicer_to_server(Service(), server)
    receiver.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield receiver
    finally:
        server.stop(0).wait(5)


def _read(request: messages.ExportTraceServiceRequest) -> Iterator[Received]:
    for of_process in request.resource_spans:
        resource = _plain(of_process.resource.attributes)
        for of_scope in of_process.scope_spans:
            for span in of_scope.spans:
                yield Received(
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    name=span.name,
                    kind=KINDS[span.kind],
                    began=span.start_time_unix_nano / 1e9,
                    ended=span.end_time_unix_nano / 1e9,
                    attributes=_plain(span.attributes),
                    events=[
                        (each.name, each.time_unix_nano / 1e9, _plain(each.attributes)) for each in span.events
                    ],
                    links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    error=span.status.message if span.status.code == ERROR else None,
                    resource=resource,
                )


def _plain(attributes: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in attributes
    }
