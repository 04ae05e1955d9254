"""
The lines of a file on disk, so that those of one invoice can be read together, wherever they are, in bounded
memory.

It is a private temporary SQLite file that is deleted when it is closed.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -8192;
CREATE TABLE invoice (id INTEGER PRIMARY KEY, number TEXT NOT NULL UNIQUE, damaged INTEGER NOT NULL DEFAULT 0);
CREATE TABLE line (
    number INTEGER PRIMARY KEY, invoice INTEGER, part INTEGER, spelled TEXT, reason TEXT NOT NULL, read TEXT
);
CREATE INDEX line_of_invoice ON line (invoice, number);
"""


class Line(NamedTuple):
    """A line of the file: its number and position, and its parsed content."""

    number: int
    part: int
    """Counts how often the file changed from one invoice to another."""
    spelled: str
    """The invoice's number as written in the file."""
    reason: str
    """Why the line is rejected; empty if it is valid."""
    read: list[Any] | None
    """The values of its `invoices.Row`; None for a rejected line."""


class Spool:
    """Lines by invoice, in the order in which the file first names the invoices."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        self._database.executescript(SCHEMA)
        self._current: tuple[str, int] = ("", 0)
        self._part = 0

    def close(self) -> None:
        """Delete the file."""
        self._database.close()

    def add(self, number: int, invoice: str, spelled: str, reason: str, read: list[Any] | None) -> None:
        """Store a line; one without an invoice belongs to none."""
        values = (self._id(invoice) if invoice else None, self._part, spelled, reason, json.dumps(read))
        self._database.execute("INSERT INTO line VALUES (?, ?, ?, ?, ?, ?)", (number, *values))

    def damage(self, invoice: str) -> None:
        """Record that a line of the invoice is wrong."""
        self._database.execute("UPDATE invoice SET damaged = 1 WHERE number = ?", (invoice,))

    def invoices(self) -> Iterator[tuple[int, str, bool]]:
        """Yield the id of each invoice, its number, and whether a line of it is wrong."""
        for key, number, damaged in self._database.execute("SELECT * FROM invoice ORDER BY id"):
            yield key, number, bool(damaged)

    def lines(self, invoice: int, most: int) -> list[Line]:
        """The first lines of an invoice."""
        found = self._database.execute(
            "SELECT number, part, spelled, reason, read FROM line WHERE invoice = ? ORDER BY number LIMIT ?",
            (invoice, most),
        )
        return [
            Line(number, part, spelled, reason, json.loads(read))
            for number, part, spelled, reason, read in found
        ]

    def reasons(self, invoice: int) -> Counter[str]:
        """The number of lines of an invoice, by the reason why they are rejected."""
        return self._count("invoice = ?", invoice)

    def reasons_beyond(self, invoice: int, before: int) -> Counter[str]:
        """The number of rejected lines of this and later invoices, among the lines before line `before`."""
        return self._count("invoice >= ? AND number < ? AND reason != ''", invoice, before)

    def reasons_of_none(self, before: int | None) -> Counter[str]:
        """The number of lines without an invoice, among the lines before line `before`; None: of all lines."""
        return self._count("invoice IS NULL AND (?1 IS NULL OR number < ?1)", before)

    def _count(self, which: str, *values: int | None) -> Counter[str]:
        counted = f"SELECT reason, count(*) FROM line WHERE {which} GROUP BY reason"  # noqa: S608 - our own text
        return Counter(dict(self._database.execute(counted, values)))

    def _id(self, invoice: str) -> int:
        if invoice != self._current[0]:
            self._part += 1
            add = "INSERT INTO invoice (number) VALUES (?) ON CONFLICT DO NOTHING"
            self._database.execute(add, (invoice,))
            [key] = self._database.execute("SELECT id FROM invoice WHERE number = ?", (invoice,)).fetchone()
            self._current = (invoice, key)
        return self._current[1]
