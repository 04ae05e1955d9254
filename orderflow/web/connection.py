"""
A connection of the web server: the part of its next request that has been received, and whether it is complete.

`orderflow.web.worker` receives in its loop and hands complete requests to threads; `orderflow.web.unsent` sends
responses.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from gunicorn import http, util  # type: ignore[import-untyped]
from gunicorn.http.body import ChunkedReader  # type: ignore[import-untyped]
from gunicorn.workers import gthread  # type: ignore[import-untyped]

HEAD_WITHIN = 10.0
"""Seconds from the first byte, or from the connection, until the headers are complete."""

BODY_WITHIN = 20.0
"""Seconds from then on until the body is complete."""

LARGEST_HEAD = 64 * 1024
LARGEST_LINE = 4094
"""Bytes of the first line, as in `gunicorn.conf.py`."""

LARGEST_BODY = 3 * 1024 * 1024
"""More than Django reads into memory (`DATA_UPLOAD_MAX_MEMORY_SIZE`), which is more than the API accepts."""

LARGEST_CHUNK_LINE = 8190
CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]+(?:[ \t]*;.*)?", re.DOTALL)
"""
Digits only: `int()` accepts signs, and after a chunk with a negative size the same chunk would be read again.
"""

FOR_PROGRAMS = ("/api/", "/livez", "/readyz", "/healthz", "/metrics")
"""The prefixes of paths that are not pages for people."""


class Refused(Exception):
    """The request ends here, with this problem from the API's catalogue."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code, self.detail = code, detail


class Connection(gthread.TConn):  # type: ignore[misc]
    """A connection, the received part of its next request, and how far that has been parsed."""

    def __init__(self, *args: Any, linger: Callable[[Connection], None]) -> None:
        super().__init__(*args)
        self.received = bytearray()
        self.counted = 0
        self.gone_at = 0.0
        self._linger = linger
        self.start_over()

    def start_over(self) -> None:
        """Wait for another request. Data after the end of the last one is the beginning of this one."""
        if self.parser is not None:
            self.received = bytearray(self.parser.unreader.take_buffered())
        self.timeout = time.monotonic() + HEAD_WITHIN
        self._searched = 0
        self._length: int | None = None
        self._next_chunk = 0
        self._searched_for_trailers = 0
        self._expects = False
        self.has_head = False
        self.is_page = False

    def is_complete(self) -> bool:
        """
        Return whether a thread can process what has been received without waiting for the client.

        Raises:
            Refused: if it is too large.
        """
        if not self.has_head and not self._find_head():
            return False
        if self._length is not None:
            return len(self.received) >= self._length
        return self._find_last_chunk()

    def wants_to_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return self._expects

    def close(self, graceful: bool = False) -> None:
        """Close it; gracefully: after the client has closed it, or a moment later."""
        if graceful:
            self._linger(self)
        else:
            util.close(self.sock)

    def _find_head(self) -> bool:
        while self.received.startswith(b"\r\n"):  # RFC 9112, section 2.2
            del self.received[:2]
        end = self.received.find(b"\r\n\r\n", max(0, self._searched - 3))
        self._searched = len(self.received)
        if end < 0:
            if len(self.received) > LARGEST_HEAD:
                is_line = self.received.find(b"\r\n", 0, LARGEST_LINE + 2) < 0
                raise Refused("uri-too-long" if is_line else "headers-too-large")
            return False
        self._read_head(bytes(self.received[: end + 4]))
        self.has_head = True
        self.timeout = time.monotonic() + BODY_WITHIN
        return True

    def _read_head(self, head: bytes) -> None:
        """
        Let Gunicorn's own parser determine the framing: two different parsers would allow request smuggling.
        """
        try:
            request = next(http.get_parser(self.cfg, iter([head]), self.client))
        except (http.errors.NoMoreData, StopIteration):
            raise Refused("malformed-request") from None
        except Exception:  # the thread's parser meets the same error and responds to it
            self._length = len(head)
            return
        if not _is_unambiguous(request):
            raise Refused("malformed-request", "the address or the host is ambiguous")
        self.is_page = not request.path.startswith(FOR_PROGRAMS)
        self._expects = ("EXPECT", "100-continue") in [
            (name, value.lower()) for name, value in request.headers if name == "EXPECT"
        ]
        if isinstance(request.body.reader, ChunkedReader):
            codings = [value.strip().lower() for name, value in request.headers if name == "TRANSFER-ENCODING"]
            if codings != ["chunked"]:
                raise Refused("unsupported-transfer-coding")
            self._next_chunk = len(head)
            return
        length = getattr(request.body.reader, "length", 0)
        if length > LARGEST_BODY:
            raise Refused("body-too-large")
        self._length = len(head) + length

    def _find_last_chunk(self) -> bool:
        while (
            end := self.received.find(b"\r\n", self._next_chunk, self._next_chunk + LARGEST_CHUNK_LINE)
        ) >= 0:
            line = self.received[self._next_chunk : end]
            if not CHUNK_SIZE.fullmatch(line):
                return True  # Gunicorn's parser refuses it
            size = int(line.partition(b";")[0], 16)
            if size == 0:
                return self._find_trailers(end)
            self._next_chunk = end + 2 + size + 2
            if self._next_chunk > LARGEST_BODY:
                raise Refused("body-too-large")
        if len(self.received) - self._next_chunk >= LARGEST_CHUNK_LINE:
            raise Refused("malformed-request", "the chunks of the body cannot be read")
        return False

    def _find_trailers(self, begin: int) -> bool:
        end = self.received.find(b"\r\n\r\n", max(begin, self._searched_for_trailers - 3))
        self._searched_for_trailers = len(self.received)
        if end < 0 and len(self.received) - begin > LARGEST_HEAD:
            raise Refused("headers-too-large")
        return end >= 0


def _is_unambiguous(request: Any) -> bool:
    """
    Whether a proxy and the application understand the same host and path (RFC 9112, sections 3.2 and 3.2.2).

    Other parsers prefer an absolute URL to `Host`, and differ in how they treat a fragment.
    """
    hosts = [value.strip().lower() for name, value in request.headers if name == "HOST"]
    if "#" in request.uri or len(hosts) > 1 or (not hosts and request.version >= (1, 1)):
        return False
    scheme, is_absolute, rest = request.uri.partition("://")
    if request.uri.startswith("/") or not is_absolute or "?" in scheme:
        return True
    authority = re.split("[/?]", rest, maxsplit=1)[0].lower()
    return scheme.lower() in ("http", "https") and [authority] == hosts
