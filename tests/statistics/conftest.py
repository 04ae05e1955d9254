"""Running roll-ups until everything that was committed is counted."""

from __future__ import annotations

import pytest
from django.db import connection

from outbox.models import StatisticsBucket, StatisticsTotal
from outbox.statistics import rolling_up
from tests.processes import eventually

RUNS = 2
"""A position is sampled in the first run, and counted in the second when older transactions have ended."""


@pytest.fixture
def roll_up():
    """Count all that was committed before."""

    def run():
        for _ in range(RUNS):
            rolling_up.roll_up()
        if others := elsewhere():  # transactions of other databases hold up the count, too
            eventually(lambda: others.isdisjoint(elsewhere()), "transactions of other tests have ended")
            rolling_up.roll_up()

    return run


def elsewhere():
    """Return the ids of the transactions of other databases of this server."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT backend_xid::text FROM pg_stat_activity"
            " WHERE backend_xid IS NOT NULL AND datname IS DISTINCT FROM current_database()"
        )
        return {xid for (xid,) in cursor.fetchall()}


def stored(series):
    """Return the stored total of a series, by labels."""
    return {tuple(total.labels): total.count for total in StatisticsTotal.objects.filter(series=series)}


def in_buckets(series):
    """Return the number of a series in all minutes together."""
    return sum(StatisticsBucket.objects.filter(series=series).values_list("count", flat=True))
