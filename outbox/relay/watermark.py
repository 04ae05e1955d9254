"""
Where a relay goes on reading.

What was delivered leaves dead entries in the index of undelivered messages, until PostgreSQL vacuums the
table. With millions of published messages beside it that can take a million deliveries, and passing over
their entries takes 10 ms at every look. So a relay begins where its last look ended, and reads from the very
beginning only now and then.
"""

from __future__ import annotations

import datetime as dt
import time

BEGINNING = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
"""Before any message."""

MARGIN = dt.timedelta(seconds=1)
"""How far before the end of the last look the next one begins. Messages become visible when their transactions
end, not in the order of their times; nearly all transactions are shorter than this."""

FROM_BEGINNING_EVERY = 0.25
"""Seconds between two looks from the beginning: what a message waits longer that a long transaction made, or
that another relay has let go of."""


class Watermark:
    """How far one relay has read. It is kept in memory only: without it, everything is looked through."""

    def __init__(self) -> None:
        self._at = BEGINNING
        self._read_from_beginning = -FROM_BEGINNING_EVERY

    def begin(self) -> dt.datetime:
        """The time of delivery from which to look now."""
        now = time.monotonic()
        if now - self._read_from_beginning < FROM_BEGINNING_EVERY:
            return self._at
        self._read_from_beginning = now
        return BEGINNING

    def move(self, seen_until: dt.datetime) -> None:
        """Remember that all was found that was due until then, by the database's clock; never moves back."""
        self._at = max(self._at, seen_until - MARGIN)
