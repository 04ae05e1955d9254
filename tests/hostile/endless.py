"""Servers whose responses do not end, or redirect: what they write to a client, part by part."""

from __future__ import annotations

import contextlib
import itertools
import socket
import socketserver
import threading
import time
import zlib
from collections.abc import Callable, Iterator

Parts = Iterator[bytes]

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BLANKS = b" " * 64 * 1024
DRIP = 0.1
"""Seconds between two bytes, far below any socket timeout."""


def forever(part: bytes) -> Parts:
    return itertools.repeat(part)


def dripping(text: bytes) -> Parts:
    for byte in text:
        time.sleep(DRIP)
        yield bytes([byte])


def chunked(parts: Parts) -> Parts:
    yield OK + b"Transfer-Encoding: chunked\r\n\r\n"
    for part in parts:
        yield b"%x\r\n%s\r\n" % (len(part), part)


def unfolding() -> Parts:
    yield OK + b"Content-Encoding: gzip\r\n\r\n"
    squeeze = zlib.compressobj(wbits=31)
    while True:
        yield squeeze.compress(bytes(16 * 1024 * 1024)) + squeeze.flush(zlib.Z_SYNC_FLUSH)


def one_header() -> Parts:
    yield OK + b"X-Long: "
    yield from forever(b"x" * 64 * 1024)


HTTP: dict[str, Callable[[], Parts]] = {
    "headers without an end": lambda: itertools.chain([OK], forever(b"X-More: yes\r\n" * 50)),
    "a header without an end": one_header,
    "a body without an end": lambda: itertools.chain([OK + b"\r\n"], forever(BLANKS)),
    "chunks without an end": lambda: chunked(forever(BLANKS)),
    "a chunk of a size without an end": lambda: itertools.chain(
        [OK + b"Transfer-Encoding: chunked\r\n\r\n"], forever(b"1" * 1000)
    ),
    "trailers without an end": lambda: itertools.chain(
        [OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"], forever(b"X-More: yes\r\n" * 50)
    ),
    "interim answers without an end": lambda: forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
    "a status that drips": lambda: dripping(b"HTTP/1.1 200 " + b"O" * 500),
    "headers that drip": lambda: itertools.chain([OK], dripping(b"X-Slow: " + b"x" * 500)),
    "a body that drips": lambda: itertools.chain([OK + b"Content-Length: 500\r\n\r\n"], dripping(b" " * 500)),
    "more than it says": lambda: itertools.chain(
        [OK + b"Content-Length: 99999999999\r\n\r\n"], forever(BLANKS)
    ),
    "less than it says": lambda: iter([OK + b"Content-Length: 500\r\n\r\n{}"]),
    "a length that is none": lambda: itertools.chain([OK + b"Content-Length: -5\r\n\r\n"], forever(BLANKS)),
    "a bomb of gzip": unfolding,
    "a redirect to itself": lambda: iter([b"HTTP/1.1 307 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"]),
    "a redirect elsewhere": lambda: iter(
        [b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n"]
    ),
    "a redirect to a file": lambda: iter(
        [b"HTTP/1.1 301 Moved\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"]
    ),
    "nothing": lambda: iter([]),
    "no HTTP": lambda: forever(b"SSH-2.0-OpenSSH_9.2\r\n"),
}
"""Responses to any request."""

GREETING = b"220 mail\r\n"

SMTP: dict[str, Callable[[], Parts]] = {
    "a greeting without an end": lambda: forever(b"220-welcome\r\n" * 100),
    "a line without an end": lambda: itertools.chain([b"220 "], forever(b"x" * 1000)),
    "a greeting that drips": lambda: dripping(b"220-" + b"x" * 500),
    "extensions without an end": lambda: itertools.chain([GREETING], forever(b"250-X-MORE\r\n" * 100)),
    "extensions that drip": lambda: itertools.chain([GREETING], dripping(b"250-X-MORE\r\n" * 50)),
    "a line of its reply now and then": lambda: itertools.chain([GREETING], lines_that_drip()),
    "no codes": lambda: itertools.chain([GREETING], forever(b"hello\r\n")),
    "nothing": lambda: iter([]),
}
"""What a mail server replies to any command."""


def lines_that_drip() -> Parts:
    while True:
        time.sleep(DRIP)
        yield b"250-X-MORE\r\n"


class Server:
    """Writes the same to every client on a free port of 127.0.0.1 until it is closed."""

    def __init__(self, parts: Callable[[], Parts], *, reads_first: bool) -> None:
        self.written, self.clients = 0, 0
        server = self

        class Handler(socketserver.BaseRequestHandler):
            request: socket.socket

            def handle(self) -> None:
                server.clients += 1
                with contextlib.suppress(OSError):
                    if reads_first:
                        self.request.recv(64 * 1024)
                    for part in parts():
                        self.request.sendall(part)
                        server.written += len(part)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
