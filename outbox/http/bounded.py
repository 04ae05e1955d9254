"""
Limits the size and the total duration of the responses of providers.

Socket timeouts apply to the time between two bytes. Without further limits, a server that sends a byte now and
then, endless headers, endless SMTP replies, or megabytes that decompress to gigabytes would block a worker for
as long as it likes. Adapters treat an exceeded limit like a broken connection.
"""

from __future__ import annotations

import http.client
import io
import smtplib
import socket
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import connection, connectionpool

LARGEST_ANSWER = 16 * 1024 * 1024
"""Maximum bytes of one HTTP response, as sent and decompressed. A page of a list has some hundred thousand."""

LARGEST_DIALOGUE = 256 * 1024
"""Maximum bytes of a mail server's replies during one mail. Most servers send a few hundred."""

PART = 64 * 1024

MOST_KEPT = 256
"""Maximum number of connections that a session keeps to one server: one for each call in flight. They are only
opened when needed. With urllib3's own limit of 10, each further call of a process with threads would open a
connection and close it again."""


class TooMuch(OSError):
    """The response exceeds the size limit."""


class Reader(io.RawIOBase):
    """Reads a socket, up to a number of bytes and a number of seconds."""

    def __init__(self, sock: Any, *, seconds: float, most: int) -> None:
        self._sock, self._left, self._ends = sock, most, time.monotonic() + seconds
        # The socket is really closed when this file is closed, even if its owner has closed it before.
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """
        Read the available bytes.

        Raises:
            TimeoutError: if the time limit is exceeded.
            TooMuch: if the size limit is exceeded.
        """
        seconds = self._ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the response took too long")
        if self._left <= 0:
            raise TooMuch("the response is too long")
        before = self._sock.gettimeout()
        self._sock.settimeout(seconds if before is None else min(seconds, before))
        try:
            found = self._sock.recv_into(memoryview(buffer)[: self._left])
        finally:
            self._sock.settimeout(before)
        self._left -= found
        return int(found)

    def fileno(self) -> int:
        return int(self._sock.fileno())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _response_class(seconds: float) -> type[http.client.HTTPResponse]:
    class Response(http.client.HTTPResponse):
        """A response that is limited in all parts: interim responses, headers and body."""

        def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
            super().__init__(sock, *args, **options)
            self.fp.close()
            self.fp = io.BufferedReader(Reader(sock, seconds=seconds, most=LARGEST_ANSWER))

    return Response


class _Adapter(HTTPAdapter):
    """Limits responses and follows no redirects: no provider's API has any."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        super().__init__(pool_maxsize=MOST_KEPT)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        response = _response_class(self._seconds)

        class Plain(connection.HTTPConnection):
            response_class = response

        class Secure(connection.HTTPSConnection):
            response_class = response

        class PlainPool(connectionpool.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(connectionpool.HTTPSConnectionPool):
            ConnectionCls = Secure

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    def send(self, request: Any, *args: Any, **options: Any) -> requests.Response:
        """
        Send a request and read the whole response.

        Raises:
            requests.exceptions.RequestException: if the response exceeds a limit or is a redirect.
        """
        response = super().send(request, *args, **options)
        try:
            if response.is_redirect:
                raise requests.exceptions.TooManyRedirects(
                    f"the response {response.status_code} is a redirect", response=response
                )
            content = bytearray()
            for part in response.iter_content(PART):
                content += part
                if len(content) > LARGEST_ANSWER:
                    raise requests.exceptions.ContentDecodingError("the decompressed response is too long")
        except BaseException:
            response.close()
            raise
        response._content, response._content_consumed = bytes(content), True  # type: ignore[attr-defined]
        return response


def bound(session: requests.Session, *, seconds: float) -> requests.Session:
    """Limit the size and the duration of a session's responses, and disable redirects."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(seconds))
    return session


DIALOGUE = 2.0
"""The time limit for all replies of a mail server together, as a multiple of the timeout for one reply."""


class _Bounded:
    """The part of an SMTP client that reads replies."""

    sock: Any
    file: Any
    timeout: Any
    mails = 0
    """How many mails were sent through this connection."""

    def renew(self) -> None:
        """Begin with new limits, before the connection is used again. Unread replies are dropped."""
        if self.file is not None:
            self.file.close()
            self.file = None
        vars(self).pop("_ends", None)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:
            if not hasattr(self, "_ends"):
                self._ends = time.monotonic() + DIALOGUE * self.timeout
            left = max(0.0, self._ends - time.monotonic())
            self.file = io.BufferedReader(Reader(self.sock, seconds=left, most=LARGEST_DIALOGUE))
        return super().getreply()  # type: ignore[misc, no-any-return]


class SMTP(_Bounded, smtplib.SMTP):
    """An SMTP client with limited replies."""


class SecureSMTP(_Bounded, smtplib.SMTP_SSL):
    """The same over TLS."""
