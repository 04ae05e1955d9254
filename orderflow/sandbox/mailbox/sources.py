"""The sources of the mailbox: the ledgers of the servers that received the messages."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from orderflow.sandbox.access import authorization

# A server that does not respond within this time is shown as not reachable.
PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The content of a ledger; `problem` is None if it could be read."""

    entries: Sequence[dict[str, Any]] = field(default_factory=list)
    total: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One server, and the relevant kind of entries in its ledger."""

    url: str
    kind: str
    password: str

    def newest(self, limit: int, *, mentioning: str = "") -> Reading:
        """Read the newest entries that contain a text, and count all of them."""
        return self._read(limit=limit, order="newest", **({"match": mentioning} if mentioning else {}))

    def one(self, seq: int) -> Reading:
        return self._read(limit=1, after=seq - 1)

    def after(self, seq: int, limit: int) -> Reading:
        """Read the entries after a sequence number, oldest first."""
        return self._read(limit=limit, after=seq)

    def _read(self, **parameters: str | int) -> Reading:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            try:
                shown = {"Authorization": authorization(self.password)}
                query = urlencode({"kind": self.kind, **parameters})
                connection.request("GET", f"/_ledger?{query}", headers=shown)
                answer = json.loads(connection.getresponse().read())
                return Reading(answer["entries"], answer["total"])
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                return Reading(problem=str(error) or type(error).__name__)


def newest_of(sources: Sequence[Source], limit: int, *, mentioning: str = "") -> list[Reading]:
    """Read several servers in parallel, so that one that hangs does not delay the others."""
    with concurrent.futures.ThreadPoolExecutor(len(sources)) as pool:
        return list(pool.map(lambda source: source.newest(limit, mentioning=mentioning), sources))
