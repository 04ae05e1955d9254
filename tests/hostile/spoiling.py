"""
The providers of the sandbox, with one value of their responses replaced.

The values are found by walking the responses, so that a new field or provider is replaced as well. The settings
of a provider are found by its address.
"""

from __future__ import annotations

import copy
import dataclasses
import http.client
import http.server
import json
import re
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings as known

from tests.hostile.answers import Answer
from tests.hostile.values import MISSING, written

Path = tuple[str | int, ...]

VARYING = re.compile(r"(?=.*\d).{18,}")
"""A part of a path that identifies one resource."""

HOP_BY_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"}
WITHOUT_BODY = {204, 304}


@dataclasses.dataclass(frozen=True, order=True)
class Place:
    """A value in the responses to one kind of request."""

    request: str
    path: Path

    def __str__(self) -> str:
        return f"{self.request} {'.'.join(map(str, self.path)) or '(all)'}"


class Spoiler:
    """A proxy in front of one server."""

    def __init__(self, name: str, target: str) -> None:
        self.name = name
        self.places: set[Place] = set()
        self.requests: list[str] = []
        self.struck = 0
        self._target = urlsplit(target)
        self._spoilt: tuple[Place, Any, bool] | None = None
        self.instead: Answer | None = None
        """The response to send in place of the server's; None passes on the server's own."""
        spoiler = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def pass_on(self) -> None:
                spoiler._pass_on(self)

            do_GET = do_POST = pass_on

            def log_message(self, *_: object) -> None:
                """Stay silent."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def spoil(self, place: Place, value: Any, *, however_asked: bool) -> None:
        """Replace the value at this place in all responses from now on."""
        self.struck, self._spoilt = 0, (place, value, however_asked)

    def heal(self) -> None:
        """Pass responses on unchanged."""
        self._spoilt = self.instead = None

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _pass_on(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        link = http.client.HTTPConnection(self._target.hostname or "", self._target.port, timeout=10)
        try:
            link.request(handler.command, handler.path, body or None, dict(handler.headers))
            answer = link.getresponse()
            content = answer.read()
        finally:
            link.close()
        request = f"{self.name} {handler.command} {_kind(handler.path)} {answer.status}"
        self.requests.append(request)
        if self.instead is not None:
            self.struck += 1
            _write(handler, self.instead.status, self.instead.headers, self.instead.body)
            return
        content = self._spoil_content(request, content)
        _write(handler, answer.status, answer.getheaders(), content)

    def _spoil_content(self, request: str, content: bytes) -> bytes:
        document = json.loads(content)
        self.places |= {Place(request, path) for path in paths(document)}
        if self._spoilt is None:
            return content
        place, value, however_asked = self._spoilt
        if request != place.request and not (however_asked and _unasked(request) == _unasked(place.request)):
            return content
        if place.path and not _has(document, place.path):
            return content
        self.struck += 1
        return written(replaced(document, place.path, value))


def _write(
    handler: http.server.BaseHTTPRequestHandler,
    status: int,
    headers: Iterable[tuple[str, str]],
    content: bytes,
) -> None:
    handler.send_response(status)
    for header, value in headers:
        if header.lower() not in HOP_BY_HOP:
            handler.send_header(header, value)
    if status not in WITHOUT_BODY:
        handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def _kind(address: str) -> str:
    """Return the kind of a request: its path without ids."""
    path, _, query = address.partition("?")
    names = sorted({pair.partition("=")[0] for pair in query.split("&") if pair})
    kind = "/".join("*" if VARYING.fullmatch(part) else part for part in path.split("/"))
    return f"{kind}?{'&'.join(names)}" if names else kind


def _unasked(request: str) -> str:
    """Return the kind of a request without the names of its parameters."""
    return re.sub(r"\?\S*", "", request)


def paths(document: Any, begun: Path = ()) -> Iterator[Path]:
    """Yield the places of a document's values, the document first; of a list only the first item."""
    yield begun
    if isinstance(document, dict):
        for name, value in document.items():
            yield from paths(value, (*begun, name))
    elif isinstance(document, list) and document:
        yield from paths(document[0], (*begun, 0))


def replaced(document: Any, path: Path, value: Any) -> Any:
    """Return the document with another value at this place, or without it."""
    if not path:
        return None if value is MISSING else value
    changed = copy.deepcopy(document)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


def _has(document: Any, path: Path) -> bool:
    for step in path:
        try:
            document = document[step]
        except (LookupError, TypeError):
            return False
    return True


class SpoiltWorld:
    """All HTTP providers of the sandbox, each behind a spoiler that the settings name instead."""

    def __init__(self, world: Any, settings: Any) -> None:
        self.spoilers: list[Spoiler] = []
        named = {name: getattr(known, name) for name in dir(known) if name.isupper()}
        for name in ("payments", "warehouse", "sms", "push"):
            target = getattr(world, name).url
            spoiler = Spoiler(name, target)
            self.spoilers.append(spoiler)
            changed = [setting for setting, value in named.items() if value == target]
            assert changed, f"no setting names the sandbox's {name}"
            for setting in changed:
                setattr(settings, setting, spoiler.url)

    @property
    def places(self) -> list[Place]:
        """Return all values that occurred in responses so far."""
        return sorted((place for spoiler in self.spoilers for place in spoiler.places), key=str)

    @property
    def struck(self) -> int:
        """The number of changed responses."""
        return sum(spoiler.struck for spoiler in self.spoilers)

    @property
    def requests(self) -> list[str]:
        return [request for spoiler in self.spoilers for request in spoiler.requests]

    def url_of(self, name: str) -> str:
        return next(spoiler.url for spoiler in self.spoilers if spoiler.name == name)

    def spoil(self, place: Place, value: Any, *, however_asked: bool = False) -> None:
        """Replace the value at this place from now on, also in responses to requests with other parameters."""
        for spoiler in self.spoilers:
            spoiler.spoil(place, value, however_asked=however_asked)
            spoiler.requests.clear()

    def answer(self, instead: Answer) -> None:
        """Send this response to every request from now on, after the server has processed the request."""
        for spoiler in self.spoilers:
            spoiler.instead, spoiler.struck = instead, 0
            spoiler.requests.clear()

    def heal(self) -> None:
        for spoiler in self.spoilers:
            spoiler.heal()
            spoiler.requests.clear()

    def forget(self) -> None:
        """Pass responses on unchanged, and record their places again."""
        self.heal()
        for spoiler in self.spoilers:
            spoiler.places.clear()

    def stop(self) -> None:
        for spoiler in self.spoilers:
            spoiler.stop()
