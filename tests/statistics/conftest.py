"""Running roll-ups until everything that was committed is counted."""

from __future__ import annotations

import pytest

from outbox.models import StatisticsBucket, StatisticsTotal
from outbox.statistics import rolling_up

RUNS = 2
"""A position is sampled in the first run, and counted in the second when older transactions have ended."""


@pytest.fixture
def roll_up():
    """Count all that was committed before."""

    def run():
        for _ in range(RUNS):
            rolling_up.roll_up()

    return run


def stored(series):
    """Return the stored total of a series, by labels."""
    return {tuple(total.labels): total.count for total in StatisticsTotal.objects.filter(series=series)}


def in_buckets(series):
    """Return the number of a series in all minutes together."""
    return sum(StatisticsBucket.objects.filter(series=series).values_list("count", flat=True))
