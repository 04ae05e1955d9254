"""
Gunicorn's threaded worker, whose threads only process requests and never wait for a client to send or read.

Gunicorn gives a thread to every connection that has sent a byte, and the thread waits for the rest: forty
clients that send half a request stop the web server, and so do clients that do not read their responses. Here
the worker's loop receives, without blocking, until a request is complete; deadlines and limits apply. A thread
processes it, and the loop sends what the client has not read of the response. The loop also waits for the
client's side of a connection that it closes; Gunicorn blocks its loop for that.

Pages for people use at most half of the threads, so that however many are requested, the API has the others.

With TLS that Gunicorn itself ends, the threads receive and send as in stock Gunicorn. That is a reason for a
proxy in front; see docs/deployment.md.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import selectors
import socket
import struct
import time
from collections import deque
from concurrent.futures import Future
from typing import Any

from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.workers import gthread  # type: ignore[import-untyped]

from orderflow.web import errors
from orderflow.web.connection import Connection, Refused
from orderflow.web.unsent import BufferedSocket

STALLS = 5
"""Seconds without progress after which a read or write fails."""

SENT_WITHIN = 60.0
"""Seconds until a client must have read a response, at any speed."""

LINGER = 2.0
"""
Seconds in which the client may still send data that is discarded, so that it sees the response before the end.
"""

MOST_BUFFERED = 64 * 1024 * 1024
"""Bytes of incomplete requests in one process, and of unread responses."""

MOST_LINGERING = 500
SWEPT_EVERY = 0.5
READ_AT_ONCE = 65_536


class Worker(gthread.ThreadWorker):  # type: ignore[misc]
    """See the module's docstring."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._receiving: dict[Connection, None] = {}  # oldest first
        self._sending: dict[Connection, Future[Any]] = {}  # oldest first
        self._lingering: dict[Connection, float] = {}
        self._pages: deque[Connection] = deque()  # they wait for a thread
        self._pages_at_work = 0
        self._buffered = 0
        self._unsent = 0
        self._swept_at = 0.0

    def accept(self, listener: Any) -> None:
        """Accept a connection; if there are too many, close the one that has been incomplete for longest."""
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        stalls = struct.pack("ll", STALLS, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, stalls)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, stalls)
        if not self.cfg.is_ssl:
            sock = BufferedSocket(sock)
        self.enqueue_req(Connection(self.cfg, sock, client, listener.getsockname(), linger=self._linger))
        if self.nr_conns >= self.worker_connections:
            if self._receiving:
                self._drop(next(iter(self._receiving)))
            elif self._sending:
                self._give_up(next(iter(self._sending)))

    def enqueue_req(self, conn: Connection) -> None:
        """Wait for the connection's next request, and pass it to a thread."""
        if self.cfg.is_ssl:
            super().enqueue_req(conn)
            return
        conn.start_over()
        conn.sock.setblocking(False)
        self._receiving[conn] = None
        self._count(conn, len(conn.received))
        self.poller.register(conn.sock, selectors.EVENT_READ, functools.partial(self._receive, conn))
        if conn.received:
            self._go_on(conn)
        else:
            self._receive(conn)  # most clients have already sent their request

    def handle(self, conn: Connection) -> Any:
        """Process a received request, in a thread."""
        if conn.received:
            conn.sock.setblocking(True)
            conn.init()
            conn.parser.unreader.unread(bytes(conn.received))
            conn.received = bytearray()
            conn.data_ready = True
        return super().handle(conn)

    def finish_request(self, conn: Connection, future: Future[Any]) -> None:
        """Called by the loop when a thread is done: let the client read its response, then continue."""
        if conn.is_page:
            self._leave_to_the_next_page()
        if not isinstance(conn.sock, BufferedSocket) or not len(conn.sock):
            super().finish_request(conn, future)
            return
        now = time.monotonic()
        conn.timeout, conn.gone_at = now + STALLS, now + SENT_WITHIN
        self._sending[conn] = future
        self._unsent += len(conn.sock)
        self.poller.register(conn.sock, selectors.EVENT_WRITE, functools.partial(self._send_on, conn))
        if self._unsent > MOST_BUFFERED:
            self._give_up(max(self._sending, key=lambda other: len(other.sock)))

    def murder_pending(self) -> None:
        """Close connections past their deadline. Called by the loop after every event."""
        now = time.monotonic()
        if now - self._swept_at < SWEPT_EVERY:
            return
        self._swept_at = now
        for conn in [conn for conn in self._receiving if conn.timeout < now]:
            if conn.received:
                self._refuse(conn, Refused("request-timeout"))
            else:
                self._drop(conn)
        for conn in [conn for conn in self._sending if min(conn.timeout, conn.gone_at) < now]:
            self._give_up(conn)
        for conn in [conn for conn, until in self._lingering.items() if until < now]:
            self._end(conn)

    def _receive(self, conn: Connection, _: Any = None) -> None:
        try:
            part = conn.sock.recv(READ_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._drop(conn)
            return
        conn.received += part
        self._count(conn, len(part))
        self._go_on(conn)

    def _go_on(self, conn: Connection) -> None:
        before = conn.has_head
        try:
            is_complete = conn.is_complete()
        except Refused as refused:
            self._refuse(conn, refused)
            return
        if is_complete:
            self._forget(conn)
            self._hand_over(conn)
            return
        if conn.has_head and not before and conn.wants_to_continue():
            with contextlib.suppress(OSError):
                conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._buffered > MOST_BUFFERED:
            most = max(self._receiving, key=lambda other: other.counted)
            self._refuse(most, Refused("unavailable", "too much is being received"))

    def _hand_over(self, conn: Connection) -> None:
        if conn.is_page and self._pages_at_work >= max(1, self.cfg.threads // 2):
            self._pages.append(conn)
            return
        self._pages_at_work += conn.is_page
        super().enqueue_req(conn)

    def _leave_to_the_next_page(self) -> None:
        if self._pages:
            super().enqueue_req(self._pages.popleft())
        else:
            self._pages_at_work -= 1

    def _count(self, conn: Connection, received: int) -> None:
        conn.counted += received
        self._buffered += received

    def _refuse(self, conn: Connection, refused: Refused) -> None:
        """End an incomplete request with a problem document."""
        self.log.debug("Refused an incomplete request: %s", refused)
        with contextlib.suppress(OSError):
            conn.sock.send(errors.response(refused.code, refused.detail))
        self._forget(conn)
        self.nr_conns -= 1
        self._linger(conn)

    def _drop(self, conn: Connection) -> None:
        self._forget(conn)
        self.nr_conns -= 1
        conn.close()

    def _forget(self, conn: Connection) -> None:
        del self._receiving[conn]
        self._count(conn, -conn.counted)
        self._ignore(conn)

    def _ignore(self, conn: Connection) -> None:
        with contextlib.suppress(OSError, KeyError, ValueError):
            self.poller.unregister(conn.sock)

    def _send_on(self, conn: Connection, _: Any = None) -> None:
        before = len(conn.sock)
        try:
            if conn.sock.send_on():
                conn.timeout = time.monotonic() + STALLS
        except OSError:
            self._give_up(conn)
            return
        self._unsent -= before - len(conn.sock)
        if not len(conn.sock):
            self._ignore(conn)
            super().finish_request(conn, self._sending.pop(conn))

    def _give_up(self, conn: Connection) -> None:
        """Close a connection whose client does not read."""
        del self._sending[conn]
        self._unsent -= len(conn.sock)
        self._ignore(conn)
        self.nr_conns -= 1
        conn.close()

    def _linger(self, conn: Connection) -> None:
        """Close our side, and wait for the client to close its own."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            if len(self._lingering) >= MOST_LINGERING:
                raise OSError("too many connections are closing")
            self.poller.register(conn.sock, selectors.EVENT_READ, functools.partial(self._hear_out, conn))
        except (OSError, ValueError):
            util.close(conn.sock)
            return
        self._lingering[conn] = time.monotonic() + LINGER

    def _hear_out(self, conn: Connection, _: Any = None) -> None:
        try:
            if conn.sock.recv(READ_AT_ONCE):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._end(conn)

    def _end(self, conn: Connection) -> None:
        del self._lingering[conn]
        self._ignore(conn)
        util.close(conn.sock)

    def _cap_keepalive(self, deadline: float) -> None:
        """At shutdown: close idle connections at once, and give the others little time."""
        super()._cap_keepalive(deadline)
        for conn in list(self._receiving):
            if conn.received:
                conn.timeout = min(conn.timeout, deadline)
            else:
                self._drop(conn)
