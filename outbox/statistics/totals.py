"""
Counters: all that was ever counted, and the rows that the roll-up has not counted yet.

Both are read from one snapshot, so no row is missing or counted twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from django.db import connection, transaction

from outbox.models import StatisticsCursor, StatisticsTotal
from outbox.statistics import catalogue, counting
from outbox.statistics.catalogue import Kind
from outbox.statistics.counting import Amount, Labels

MOST_IN_TAIL = 500_000
"""Rows that are counted while somebody waits: about a tenth of a second. If the roll-up is further behind, as
after an upgrade with a long history, the series has no total until it has caught up."""

BRIEFLY = 600 * 1_000_000
"""Microseconds that a series of times may be behind before its rows are counted to learn how many they are."""

Totals = dict[str, dict[Labels, Amount]]


def read(names: Sequence[str] | None = None) -> Totals:
    """
    Return the totals of series, by default of all that have rows, by name and labels.

    A series is absent if too many of its rows are not rolled up yet. Costs three queries.

    Raises:
        outbox.statistics.catalogue.UnknownSeries: if no app has registered a series.
    """
    series = catalogue.series() if names is None else [catalogue.get(name) for name in names]
    wanted = [one.name for one in series if one.kind is not Kind.GAUGE]
    with snapshot():
        stored = folded(wanted)
        found: Totals = {}
        for name, amounts in counting.tails(tails_of(wanted)).items():
            total = found[name] = stored.get(name, {})
            for labels, amount in counting.totals_of(counting.bounded(amounts, total)).items():
                total.setdefault(labels, Amount()).add(amount)
    return {name: found[name] for name in wanted if name in found}


def folded(names: Sequence[str]) -> Totals:
    """Return the totals that the roll-up has stored."""
    found: Totals = {}
    for total in StatisticsTotal.objects.filter(series__in=names):
        amount = Amount(count=total.count, seconds=total.seconds, histogram=list(total.histogram))
        found.setdefault(total.series, {})[tuple(total.labels)] = amount
    return found


def tails_of(names: Sequence[str]) -> dict[str, int]:
    """Return the position after which rows are not rolled up, of each series with not too many such rows."""
    if not names:
        return {}
    until = f"SELECT counted_until FROM {StatisticsCursor._meta.db_table} WHERE series = %s"  # noqa: S608
    newest = " UNION ALL ".join(
        f"(SELECT {place}, ({series.rows.newest}), ({until}))"
        for place, series in enumerate(map(catalogue.get, names))
        if series.rows is not None
    )
    with connection.cursor() as cursor:
        cursor.execute(newest, list(names))
        positions = {names[place]: (top, after or 0) for place, top, after in cursor.fetchall()}
    return {
        name: after for name, (top, after) in positions.items() if not _is_far_behind(name, top, after=after)
    }


def _is_far_behind(name: str, newest: int, *, after: int) -> bool:
    rows = catalogue.get(name).rows
    assert rows is not None
    if newest - after <= (BRIEFLY if rows.is_time else MOST_IN_TAIL):
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT TRUE FROM {rows.table} AS counted WHERE {rows.after}"  # noqa: S608 - our own tables
            f" ORDER BY counted.{rows.position} OFFSET %(most)s LIMIT 1",
            {**rows.values, "after": after, "most": MOST_IN_TAIL},
        )
        return cursor.fetchone() is not None


@contextlib.contextmanager
def snapshot() -> Iterator[None]:
    """Read one snapshot of the database in the block. Inside a transaction of the caller, read what it sees."""
    is_own = not connection.in_atomic_block
    with transaction.atomic():
        if is_own:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield
