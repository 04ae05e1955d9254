"""
The database's clock, which all processes share.

A process's own clock may be wrong by days. Times that are stored, or compared with stored times, come from the
database, if possible within the statement itself. Durations within one process are measured with its monotonic
clock. Times that are only displayed may come from any clock.
"""

from __future__ import annotations

import datetime as dt

from django.db import connection

LONGEST_SKEW = dt.timedelta(days=2)
"""How far the time in an id may differ from the database's. The clocks of the process that made the id, and of
a process whose times it is compared with, may each be a day off."""


def now() -> dt.datetime:
    """Return the database's time. This costs a query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        at: dt.datetime = cursor.fetchone()[0]
    return at


def ahead() -> dt.timedelta:
    """Return how far this process's clock is ahead of the database's; negative if it is behind."""
    return dt.datetime.now(dt.UTC) - now()
