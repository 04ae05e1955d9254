"""
The HTTP server of every sandbox process: keep-alive, one thread per connection, faults applied where needed.
"""

from __future__ import annotations

import http.server
import socket
import socketserver
import struct
import sys
import time
import traceback
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote

from . import faults as faulty
from .access import Access
from .control import Control
from .faults import Strike
from .ledger import as_iso
from .messages import Answer, Request
from .provider import Provider

LARGEST_BODY = 1024 * 1024
# Small parts of a long response are sent together.
CHUNK = 64 * 1024


class _HungUp(ConnectionError):
    """The connection must be closed without a response."""


class _Unreadable(Exception):
    """The request body cannot be read."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class SandboxServer(http.server.ThreadingHTTPServer):
    """Serve one provider."""

    # A hundred clients may connect at the same moment.
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], provider: Provider, control: Control, access: Access) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.provider = provider
        self.control = control
        self.access = access
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # The standard library's version resolves our host name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            traceback.print_exc()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: SandboxServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Buffered: head and body are sent in one piece.
    wbufsize = -1
    # Seconds that an idle connection is kept.
    timeout = 120

    def handle_request(self) -> None:
        path, _, query = self.path.partition("?")
        try:
            body = self._read_body()
        except _Unreadable as unreadable:
            self.close_connection = True
            self._send(self.server.provider.failure(unreadable.status, str(unreadable)))
            return
        request = Request(
            method=self.command,
            path=unquote(path),
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers=self.headers,
            body=body,
        )
        if refusal := self._refusal(request.path):
            self._send(refusal)
        elif request.path.startswith("/_"):
            self._send(self.server.control.answer(request))
        else:
            self._serve(request)

    def _refusal(self, path: str) -> Answer | None:
        """The response to requests without access; None for all others."""
        if not self.server.access.knows_host(self.headers):
            return self.server.provider.failure(421, "The Host header does not name this server.")
        is_closed = self.server.provider.for_people or path.startswith("/_")
        if path == "/_health" or not is_closed or self.server.access.knows_password(self.headers):
            return None
        answer = self.server.provider.failure(401, "Send the run's password (HTTP Basic, any name).")
        answer.headers["WWW-Authenticate"] = 'Basic realm="OrderFlow sandbox"'
        return answer

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = handle_request

    def _serve(self, request: Request) -> None:
        started_at, started = time.time(), time.perf_counter()
        key = self.server.provider.key_of(request)
        strike = self.server.control.faults.strike(
            key, *faulty.readable(self.path.encode()), *faulty.readable(request.body)
        )
        request.latency, request.state = strike.latency, strike.state
        answer = None
        try:
            answer = self._outcome(request, strike)
        finally:
            self.server.control.calls.note(
                at=as_iso(started_at),
                method=request.method,
                path=request.path,
                key=key,
                fault="+".join(strike.names) or None,
                status=answer.status if answer else None,
                milliseconds=round((time.perf_counter() - started) * 1000, 1),
            )
        self._send(answer)

    def _outcome(self, request: Request, strike: Strike) -> Answer:
        if strike.kind == "refuse":
            self._reset()
        if strike.kind in ("drop_before", "hang"):
            request.pause()
            raise _HungUp
        if strike.kind in ("error", "rate_limit"):
            request.pause()
            return self._failure(strike)
        answer = self._act(request)
        request.pause()
        if strike.kind == "drop_after":
            raise _HungUp
        if strike.kind == "malformed":
            body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
            # Half of the response, as left by a proxy that aborts in the middle.
            return Answer(200, body[: len(body) // 2] or b"{", answer.media_type, answer.headers)
        return answer

    def _act(self, request: Request) -> Answer:
        try:
            return self.server.provider.answer(request)
        except Exception:
            traceback.print_exc()
            return self.server.provider.failure(500, "The sandbox itself failed; its output has the traceback.")

    def _failure(self, strike: Strike) -> Answer:
        status = strike.status or (429 if strike.kind == "rate_limit" else 503)
        answer = self.server.provider.failure(status, f"A sandbox fault requests status {status}.")
        if strike.retry_after is not None:
            answer.headers["Retry-After"] = str(strike.retry_after)
        return answer

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding"):
            raise _Unreadable(411, "Send the body with a Content-Length.")
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()):
            raise _Unreadable(400, "Content-Length must be a number.")
        if int(length) > LARGEST_BODY:
            raise _Unreadable(413, f"A body has at most {LARGEST_BODY} bytes.")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise _HungUp
        return body

    def _reset(self) -> None:
        # With a linger time of zero the kernel sends RST instead of FIN, once nothing holds the socket open.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
        raise _HungUp

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.media_type)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        if isinstance(answer.body, bytes):
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
        else:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._write_chunks(answer.body)
        self.wfile.flush()

    def _write_chunks(self, parts: Iterable[bytes]) -> None:
        waiting, size = [], 0
        for part in parts:
            waiting.append(part)
            size += len(part)
            if size >= CHUNK:
                self.wfile.write(b"%x\r\n%b\r\n" % (size, b"".join(waiting)))
                waiting, size = [], 0
        if size:
            self.wfile.write(b"%x\r\n%b\r\n" % (size, b"".join(waiting)))
        self.wfile.write(b"0\r\n\r\n")

    def version_string(self) -> str:
        return "OrderFlowSandbox"

    def log_message(self, *_: object) -> None:
        """Do not log: `/_calls` lists the requests."""
