"""
The control API of a server, for tests and people, never for the application: `/_health`, `/_ledger`,
`/_control`, `/_calls`.

Faults do not apply to it.
"""

from __future__ import annotations

import collections
import itertools
import json
from collections.abc import Iterator

from . import ledger as ledgers
from .faults import Faults, Unusable
from .ledger import Condition, Ledger
from .messages import Answer, Refusal, Request, json_answer

CALLS_KEPT = 5_000
CALLS_SHOWN = 100


class InvalidRequest(Refusal):
    """The request to the control API is invalid; the message says what is valid."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence

    def answer(self) -> Answer:
        return json_answer(self.status, {"error": self.sentence})


class Calls:
    """The latest requests, without queries and bodies, which may contain data that must not be logged."""

    def __init__(self) -> None:
        self._calls: collections.deque[dict[str, object]] = collections.deque(maxlen=CALLS_KEPT)

    def note(self, **fields: object) -> None:
        self._calls.append(fields)

    def latest(self, limit: int) -> list[dict[str, object]]:
        # Copied in one step: other threads append meanwhile.
        return list(itertools.islice(reversed(self._calls.copy()), limit))

    def clear(self) -> None:
        self._calls.clear()


class Control:
    """What every server has: a ledger, faults and the latest calls."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self.ledger = ledger
        self.faults = Faults()
        self.calls = Calls()

    def answer(self, request: Request) -> Answer:
        part, _, rest = request.path.removeprefix("/_").partition("/")
        try:
            match (request.method, part, rest):
                case ("GET", "health", ""):
                    return json_answer(200, {"name": self.name, "status": "ok"})
                case ("GET", "ledger", ""):
                    return self._show_ledger(request)
                case ("PATCH", "ledger", ""):
                    return self._change_entry(request)
                case ("DELETE", "ledger", ""):
                    self.calls.clear()
                    return json_answer(200, {"removed": self.ledger.clear()})
                case ("GET", "calls", ""):
                    limit = _count(request, "limit")
                    return json_answer(
                        200, {"calls": self.calls.latest(CALLS_SHOWN if limit is None else limit)}
                    )
                case ("GET", "control", ""):
                    return json_answer(200, {"faults": self.faults.listing()})
                case ("POST", "control", ""):
                    return self._add_fault(request)
                case ("DELETE", "control", fault_id):
                    return self._remove_faults(fault_id)
        except Refusal as refusal:
            return refusal.answer()
        return json_answer(
            404,
            {
                "error": f"There is no {request.method} {request.path}. There are: GET /_health; GET, PATCH and"
                " DELETE /_ledger; GET, POST and DELETE /_control; DELETE /_control/ID; GET /_calls."
            },
        )

    def _show_ledger(self, request: Request) -> Answer:
        limit = _count(request, "limit")
        after = _count(request, "after")
        newest_first = request.query.get("order", "oldest") == "newest"
        conditions: list[Condition] = []
        if kind := request.query.get("kind"):
            conditions.append(("kind = ?", (kind,)))
        if text := request.query.get("match"):
            conditions.append(ledgers.mentions(text))
        total, repeats = self.ledger.totals(*conditions)
        if after is not None:
            conditions.append(ledgers.older_than(after) if newest_first else ledgers.newer_than(after))
        # One more entry than requested shows whether there are more.
        entries = self.ledger.lines(
            *conditions, limit=None if limit is None else limit + 1, newest_first=newest_first
        )
        if request.query.get("format") == "ndjson":
            lines = entries if limit is None else itertools.islice(entries, limit)
            return Answer(200, (f"{line}\n".encode() for _, line in lines), "application/x-ndjson")
        head = {"name": self.name, "total": total, "repeats": repeats}
        return Answer(200, _in_parts(head, entries, limit))

    def _change_entry(self, request: Request) -> Answer:
        """Change the state of an entry, as time or a bank would."""
        what = _object(request)
        kind, name, changes = what.get("kind"), what.get("id"), what.get("changes")
        if not (isinstance(kind, str) and isinstance(name, str) and isinstance(changes, dict)):
            raise InvalidRequest(400, 'Send {"kind": …, "id": …, "changes": {"status": …}}.')
        with self.ledger.transaction():
            entry = self.ledger.get(kind, name)
            if entry is None:
                raise InvalidRequest(404, f"There is no {kind} {name}.")
            self.ledger.change(kind, name, entry.document | changes)
        return json_answer(200, entry.document | changes)

    def _add_fault(self, request: Request) -> Answer:
        try:
            return json_answer(201, self.faults.add(_json(request)))
        except Unusable as unusable:
            raise InvalidRequest(400, str(unusable)) from None

    def _remove_faults(self, fault_id: str) -> Answer:
        if not fault_id:
            return json_answer(200, {"removed": self.faults.remove()})
        if not (fault_id.isascii() and fault_id.isdigit()) or not self.faults.remove(int(fault_id)):
            raise InvalidRequest(404, f"There is no fault {fault_id}; GET /_control lists them.")
        return json_answer(200, {"removed": 1})


def _json(request: Request) -> object:
    # A form on a foreign web page can post to this server, but not with this content type.
    if request.media_type != "application/json":
        raise InvalidRequest(415, "Send a fault with Content-Type: application/json.")
    try:
        return request.json()
    except ValueError:
        raise InvalidRequest(400, "A fault is a JSON object; this is not JSON.") from None


def _object(request: Request) -> dict[str, object]:
    body = _json(request)
    if not isinstance(body, dict):
        raise InvalidRequest(400, "The body must be a JSON object.")
    return body


def _count(request: Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidRequest(400, f'"{name}" must be a whole number.')
    return int(text)


def _in_parts(
    head: dict[str, object], entries: Iterator[tuple[int, str]], limit: int | None
) -> Iterator[bytes]:
    yield f'{json.dumps(head)[:-1]}, "entries": ['.encode()
    last, shown = None, 0
    for seq, line in entries:
        if limit is not None and shown == limit:
            yield f'], "has_more": true, "next_after": {json.dumps(last)}}}'.encode()
            return
        yield f"{',' if shown else ''}\n{line}".encode()
        last, shown = seq, shown + 1
    yield f'], "has_more": false, "next_after": {json.dumps(last)}}}'.encode()
