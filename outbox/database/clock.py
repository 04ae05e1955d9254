"""
The clock that decides: the database's, which all processes share.

A process's own clock may be wrong by days. What is stored as a time, or compared with a stored time, is
asked of the database, in the statement itself where there is one. Durations within one process are
measured by its monotonic clock. Times that are only shown may come from anywhere.
"""

from __future__ import annotations

import datetime as dt

from django.db import connection

LONGEST_SKEW = dt.timedelta(days=2)
"""By how much the time within an id may differ from the database's. The clock of the process that made it, and
that of a process whose times it is compared with, may each be a day off."""


def now() -> dt.datetime:
    """The database's time, at the cost of a query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        at: dt.datetime = cursor.fetchone()[0]
    return at


def ahead() -> dt.timedelta:
    """How far this process's clock is ahead of the database's; negative when it is behind."""
    return dt.datetime.now(dt.UTC) - now()
