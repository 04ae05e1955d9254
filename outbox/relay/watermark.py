"""
The position from which a relay continues to read.

Delivered messages leave dead entries in the index of undelivered messages until PostgreSQL vacuums the table.
With millions of published messages that may take a million deliveries, and skipping the dead entries takes 10
ms in every query. So a relay begins where its last query ended, and reads from the beginning only now and then.
"""

from __future__ import annotations

import datetime as dt
import time

BEGINNING = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
"""Before any message."""

MARGIN = dt.timedelta(seconds=1)
"""How far before the end of the last query the next one begins. Messages become visible when their transactions
end, not in the order of their times. Nearly all transactions are shorter than this."""

FROM_BEGINNING_EVERY = 0.25
"""Seconds between two queries from the beginning. Messages of long transactions, and messages released by
another relay, wait up to this much longer."""


class Watermark:
    """How far one relay has read. It is kept in memory only; a new one reads from the beginning."""

    def __init__(self) -> None:
        self._at = BEGINNING
        self._read_from_beginning = -FROM_BEGINNING_EVERY

    def begin(self) -> dt.datetime:
        """Return the delivery time from which to read now."""
        now = time.monotonic()
        if now - self._read_from_beginning < FROM_BEGINNING_EVERY:
            return self._at
        self._read_from_beginning = now
        return BEGINNING

    def move(self, seen_until: dt.datetime) -> None:
        """Record that everything due until then was found, by the database's clock. Never moves back."""
        self._at = max(self._at, seen_until - MARGIN)
