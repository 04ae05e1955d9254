"""Order numbers: never assigned twice, even if the sequence was reset by a restore."""

from __future__ import annotations

import datetime as dt
import math

from django.db import connection

from outbox.models import Restore

MOST_PER_SECOND = 1_000
"""The maximum of numbers assigned per second: several times what one database was measured to handle."""

UNKNOWN_SPAN = dt.timedelta(days=1)
"""The assumed loss if the restored data do not show when they end."""

SLACK = 60
"""The uncertainty of the lost time, in seconds."""


def skip_forgotten(restore: Restore) -> None:
    """Continue above all numbers that may have been assigned in the time that the restore lost."""
    span = restore.noted_at - restore.data_until if restore.data_until else UNKNOWN_SPAN
    with connection.cursor() as cursor:
        cursor.execute("SELECT last_value FROM orders_number")
        [last] = cursor.fetchone()
        cursor.execute("SELECT setval('orders_number', %s, FALSE)", [first_after(last, span)])


def first_after(last: int, span: dt.timedelta) -> int:
    """Return a round number above all that can have been assigned in `span` after `last`."""
    given = math.ceil((max(0.0, span.total_seconds()) + SLACK) * MOST_PER_SECOND)
    step = 10 ** len(str(given - 1))
    return int(((last + given) // step + 1) * step)
