"""Order numbers: never given twice, also when the sequence went back in time with its database."""

from __future__ import annotations

import datetime as dt
import math

from django.db import connection

from outbox.models import Restore

MOST_PER_SECOND = 1_000
"""Numbers given in a second at most: several times what one database was seen to take."""

UNKNOWN_SPAN = dt.timedelta(days=1)
"""How much is thought to be lost where the restored data does not say when it ends."""

SLACK = 60
"""Seconds by which what is known of the lost time may be wrong."""


def skip_forgotten(restore: Restore) -> None:
    """Go on above all numbers that may have been given in the time that the database has forgotten."""
    span = restore.noted_at - restore.data_until if restore.data_until else UNKNOWN_SPAN
    with connection.cursor() as cursor:
        cursor.execute("SELECT last_value FROM orders_number")
        [last] = cursor.fetchone()
        cursor.execute("SELECT setval('orders_number', %s, FALSE)", [first_after(last, span)])


def first_after(last: int, span: dt.timedelta) -> int:
    """A round number above all that can have been given in `span` after `last`."""
    given = math.ceil((max(0.0, span.total_seconds()) + SLACK) * MOST_PER_SECOND)
    step = 10 ** len(str(given - 1))
    return int(((last + given) // step + 1) * step)
