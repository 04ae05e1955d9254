"""Running roll-ups until everything that was committed is counted."""

from __future__ import annotations

import dataclasses

import pytest

from outbox.models import StatisticsBucket, StatisticsTotal
from outbox.statistics import rolling_up

RUNS = 2
"""A position is sampled in the first run, and counted in the second when older transactions have ended."""


@pytest.fixture
def roll_up(own_transactions):
    """Count all that was committed before."""

    def run():
        for _ in range(RUNS):
            rolling_up.roll_up()

    return run


@pytest.fixture(autouse=True)
def own_transactions(monkeypatch):
    """Let no transaction of another database of the server, where other tests run, hold up the count."""
    of_the_server = rolling_up._transactions

    def of_this_database(cursor):
        known = of_the_server(cursor)
        cursor.execute(
            "SELECT min(backend_xid::text::bigint) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        (running,) = cursor.fetchone()
        return dataclasses.replace(known, oldest=known.next if running is None else running)

    monkeypatch.setattr(rolling_up, "_transactions", of_this_database)


def stored(series):
    """Return the stored total of a series, by labels."""
    return {tuple(total.labels): total.count for total in StatisticsTotal.objects.filter(series=series)}


def in_buckets(series):
    """Return the number of a series in all minutes together."""
    return sum(StatisticsBucket.objects.filter(series=series).values_list("count", flat=True))
