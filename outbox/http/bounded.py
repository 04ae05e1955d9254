"""
Limits the size and the total duration of the HTTP responses of providers.

Without limits, a server that sends endless headers, or megabytes that decompress to gigabytes, would block a
worker for as long as it likes. `reader` has the limits of all sockets, `bounded_smtp` those of mail servers.
"""

from __future__ import annotations

import http.client
import io
import socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import connection, connectionpool

from outbox.http.reader import Reader

LARGEST_ANSWER = 16 * 1024 * 1024
"""Maximum bytes of one HTTP response, as sent and decompressed. A page of a list has some hundred thousand."""

PART = 64 * 1024

MOST_KEPT = 256
"""Maximum number of connections that a session keeps to one server: one for each call in flight. They are only
opened when needed. With urllib3's own limit of 10, each further call of a process with threads would open a
connection and close it again."""


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
