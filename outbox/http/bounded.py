"""
Answers of providers that come to an end: in bytes and in time, whatever the server sends.

Timeouts of sockets count from one byte to the next. A server that sends a byte now and then, headers without an
end, replies of SMTP that go on and on, or megabytes that unfold to gigabytes, would hold a worker for as
long as it likes. For adapters, which take what is cut off for any other connection that broke.
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
"""Bytes of one HTTP answer, as sent and unfolded. A page of a list has some hundred thousand."""

LARGEST_DIALOGUE = 256 * 1024
"""Bytes that a mail server says while it takes one mail. Most say a few hundred."""

PART = 64 * 1024


class TooMuch(OSError):
    """The server sends more than any answer has."""


class Reader(io.RawIOBase):
    """Reads a socket until so many bytes were read, or so many seconds are over."""

    def __init__(self, sock: Any, *, seconds: float, most: int) -> None:
        self._sock, self._left, self._ends = sock, most, time.monotonic() + seconds
        # Closing the file is what closes the socket, for whoever else has closed it already.
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """
        Read what there is.

        Raises:
            TimeoutError: if the time is over.
            TooMuch: if the server has sent more.
        """
        seconds = self._ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the answer took too long in all")
        if self._left <= 0:
            raise TooMuch("the answer is longer than is read")
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
        """An answer whose every part is read so: interim ones, headers and body."""

        def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
            super().__init__(sock, *args, **options)
            self.fp.close()
            self.fp = io.BufferedReader(Reader(sock, seconds=seconds, most=LARGEST_ANSWER))

    return Response


class _Adapter(HTTPAdapter):
    """Connections whose answers end. Redirects are not followed: no provider's interface has any."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        super().__init__()

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
        Send a request and read all of the answer.

        Raises:
            requests.exceptions.RequestException: if it does not come to an end, or leads elsewhere.
        """
        response = super().send(request, *args, **options)
        try:
            if response.is_redirect:
                raise requests.exceptions.TooManyRedirects(
                    f"the answer {response.status_code} leads elsewhere", response=response
                )
            content = bytearray()
            for part in response.iter_content(PART):
                content += part
                if len(content) > LARGEST_ANSWER:
                    raise requests.exceptions.ContentDecodingError("the answer unfolds to more than is read")
        except BaseException:
            response.close()
            raise
        response._content, response._content_consumed = bytes(content), True  # type: ignore[attr-defined]
        return response


def bound(session: requests.Session, *, seconds: float) -> requests.Session:
    """Have a session read each answer within so many seconds in all, and follow no redirects."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(seconds))
    return session


DIALOGUE = 2.0
"""How many times the timeout of one reply a mail server may take for all of its replies together."""


class _Bounded:
    """The part of an SMTP client that reads replies."""

    sock: Any
    file: Any
    timeout: Any

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:
            if not hasattr(self, "_ends"):
                self._ends = time.monotonic() + DIALOGUE * self.timeout
            left = max(0.0, self._ends - time.monotonic())
            self.file = io.BufferedReader(Reader(self.sock, seconds=left, most=LARGEST_DIALOGUE))
        return super().getreply()  # type: ignore[misc, no-any-return]


class SMTP(_Bounded, smtplib.SMTP):
    """See the module."""


class SecureSMTP(_Bounded, smtplib.SMTP_SSL):
    """See the module."""
