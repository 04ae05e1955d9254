"""
The ledger of one simulated provider: everything that happened, in one SQLite file.

An entry is committed before the client gets its response, so neither a killed server nor a dropped connection
can make the ledger differ from what was done. `NORMAL` synchronisation is enough for that: the operating system
keeps what a killed process wrote; only a power cut could lose the last commits.

SQL is composed here from the conditions below; values from clients are always parameters.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sqlite3
import string
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A page of the ledger is read under the lock; writers wait for at most one page.
PAGE = 500

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    key TEXT,  -- NULL: the request carried no idempotency key
    times_seen INTEGER NOT NULL DEFAULT 1,
    recorded_at REAL NOT NULL,
    document TEXT NOT NULL,
    UNIQUE (kind, id)
);
CREATE TABLE IF NOT EXISTS labels (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    seq INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE,
    PRIMARY KEY (name, value, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    key TEXT PRIMARY KEY,
    endpoint TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    status INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL,
    seq INTEGER,  -- NULL: the remembered answer made no entry
    remembered_at REAL NOT NULL
);
"""

# SQLite's lower() handles only ASCII letters; texts that are compared with it must be treated alike.
SMALL_LETTERS = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

Condition = tuple[str, tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in the ledger."""

    seq: int
    kind: str
    id: str
    key: str | None
    times_seen: int
    recorded_at: float
    document: dict[str, Any]


def labelled(name: str, value: str) -> Condition:
    """Match the entries that were recorded with this label. Indexed, so fast in a long ledger."""
    return "seq IN (SELECT seq FROM labels WHERE name = ? AND value = ?)", (name, value)


def field(name: str, operator: str, value: object) -> Condition:
    """Match the entries whose document has this field. Name and operator must not come from a client."""
    return f"json_extract(document, '$.{name}') {operator} ?", (value,)


def older_than(seq: int) -> Condition:
    return "seq < ?", (seq,)


def newer_than(seq: int) -> Condition:
    return "seq > ?", (seq,)


def mentions(text: str) -> Condition:
    """Match the entries that contain this text anywhere, ignoring case."""
    text = text.translate(SMALL_LETTERS)
    # JSON escapes quotes and backslashes; so must the text that is searched for.
    escaped = json.dumps(text, ensure_ascii=False)[1:-1]
    return "(instr(lower(document), ?) OR instr(lower(ifnull(key, '')), ?))", (escaped, text)


class Ledger:
    """Entries, their labels, and idempotency keys. Safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._depth = 0
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.executescript(SCHEMA)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction. A nested one belongs to the outer one."""
        with self._lock:
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._connection
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._connection.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("COMMIT")

    def record(
        self,
        kind: str,
        name: str,
        document: Mapping[str, Any],
        *,
        key: str | None = None,
        labels: Sequence[tuple[str, str]] = (),
    ) -> int:
        """Record an event and return its sequence number."""
        with self.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO entries (kind, id, key, recorded_at, document) VALUES (?, ?, ?, ?, ?)",
                (kind, name, key, time.time(), _as_text(document)),
            )
            seq = cursor.lastrowid
            assert seq is not None
            connection.executemany(
                "INSERT OR IGNORE INTO labels (name, value, seq) VALUES (?, ?, ?)",
                [(name, value, seq) for name, value in labels],
            )
        return seq

    def change(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        """Replace the document of an entry: the same object in a new state."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE entries SET document = ? WHERE kind = ? AND id = ?", (_as_text(document), kind, name)
            )

    def count_again(self, seq: int) -> None:
        """Record that an entry's request was repeated and changed nothing."""
        with self.transaction() as connection:
            connection.execute("UPDATE entries SET times_seen = times_seen + 1 WHERE seq = ?", (seq,))

    def get(self, kind: str, name: str) -> Entry | None:
        found = self._select("kind = ? AND id = ?", (kind, name), order="seq", limit=1)
        return found[0] if found else None

    def find(
        self, kind: str, *conditions: Condition, limit: int = -1, oldest_first: bool = False
    ) -> list[Entry]:
        """Return the entries of a kind that meet every condition, newest first by default."""
        where = " AND ".join(["kind = ?", *(sql for sql, _ in conditions)])
        parameters = (kind, *(value for _, values in conditions for value in values))
        return self._select(where, parameters, order="seq" if oldest_first else "seq DESC", limit=limit)

    def totals(self, *conditions: Condition) -> tuple[int, int]:
        """Count the entries that meet every condition, and the repeats of their requests."""
        where, parameters = _all_of(conditions)
        with self._lock:
            row = self._connection.execute(
                f"SELECT count(*), ifnull(sum(times_seen - 1), 0) FROM entries WHERE {where}",  # noqa: S608
                parameters,
            ).fetchone()
        return int(row[0]), int(row[1])

    def lines(
        self, *conditions: Condition, limit: int | None, newest_first: bool = False
    ) -> Iterator[tuple[int, str]]:
        """
        Yield the entries that meet every condition as JSON texts with their sequence numbers, page by page.
        """
        beyond = older_than if newest_first else newer_than
        passed: list[Condition] = []
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            where, parameters = _all_of([*conditions, *passed])
            order = "seq DESC" if newest_first else "seq"
            with self._lock:
                rows = self._connection.execute(
                    "SELECT seq, kind, key, times_seen, recorded_at, document FROM entries"  # noqa: S608
                    f" WHERE {where} ORDER BY {order} LIMIT ?",
                    (*parameters, size),
                ).fetchall()
            for seq, kind, key, times_seen, recorded_at, document in rows:
                facts = {
                    "seq": seq,
                    "kind": kind,
                    "idempotency_key": key,
                    "times_seen": times_seen,
                    "recorded_at": as_iso(recorded_at),
                }
                # Both are non-empty JSON objects: joined as texts, neither has to be parsed.
                yield seq, f"{_as_text(facts)[:-1]}, {document[1:]}"
            if len(rows) < size:
                return
            passed = [beyond(rows[-1][0])]
            left = None if left is None else left - size

    def clear(self) -> int:
        """Delete everything, idempotency keys included, and return the number of entries."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM keys")
            return connection.execute("DELETE FROM entries").rowcount

    def _select(self, where: str, parameters: tuple[object, ...], *, order: str, limit: int) -> list[Entry]:
        with self._lock:
            rows = self._connection.execute(
                "SELECT seq, kind, id, key, times_seen, recorded_at, document FROM entries"  # noqa: S608
                f" WHERE {where} ORDER BY {order} LIMIT ?",
                (*parameters, limit),
            ).fetchall()
        return [
            Entry(seq, kind, name, key, times_seen, recorded_at, json.loads(document))
            for seq, kind, name, key, times_seen, recorded_at, document in rows
        ]


def as_iso(timestamp: float) -> str:
    return (
        dt.datetime.fromtimestamp(timestamp, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def _all_of(conditions: Sequence[Condition]) -> tuple[str, tuple[object, ...]]:
    where = " AND ".join(sql for sql, _ in conditions) or "1"
    return where, tuple(value for _, values in conditions for value in values)


def _as_text(document: Mapping[str, Any]) -> str:
    # Not escaped to ASCII, so that `mentions` finds what a person would type.
    return json.dumps(document, ensure_ascii=False)
