"""
Counting rows: the statements that group rows by minute and labels, and what they return.

Nothing here decides which rows may be counted; `rolling_up` and `totals` do.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import connection

from outbox.database import statements
from outbox.models import StatisticsBucket, StatisticsTotal, UnsettledRow
from outbox.statistics import catalogue
from outbox.statistics.catalogue import MOST_COMBINATIONS, OTHER, Rows, Series

Labels = tuple[str, ...]
Key = tuple[dt.datetime, Labels]
"""The beginning of a minute, and labels."""


@dataclasses.dataclass(kw_only=True)
class Amount:
    """A number of rows, and how long what they record took."""

    count: int = 0
    seconds: float = 0.0
    maximum: float = 0.0
    histogram: list[int] = dataclasses.field(default_factory=list)

    def add(self, other: Amount) -> None:
        """Add another amount to this one."""
        self.count += other.count
        self.seconds += other.seconds
        self.maximum = max(self.maximum, other.maximum)
        missing = len(other.histogram) - len(self.histogram)
        self.histogram.extend([0] * missing)
        for place, number in enumerate(other.histogram):
            self.histogram[place] += number


Amounts = dict[Key, Amount]


def fold(series: Series, *, after: int, until: int) -> Amounts:
    """Count the rows between two positions; remember those that do not count yet, in the same statement."""
    rows = _rows(series)
    kept = ""
    if rows.may_follow:
        kept = f"""
        , kept AS (
            INSERT INTO {UnsettledRow._meta.db_table} (series, row)
            SELECT %(series)s, position FROM part WHERE NOT counts ON CONFLICT DO NOTHING
        )"""  # noqa: S608 - our own table
    return _count(series, f"WITH part AS ({_part(rows, rows.between)}){kept}", after=after, until=until)


def tails(after: Mapping[str, int]) -> dict[str, Amounts]:
    """Count the rows after a position of each series, by name, as far as this transaction sees them."""
    parts, parameters = [], {}
    for place, (name, position) in enumerate(after.items()):
        series = catalogue.get(name)
        rows = _rows(series)
        part = _grouped(f"WITH part AS ({_part(rows, rows.after)})")
        parts.append(f"(SELECT {place}, found.* FROM ({part}) AS found)")  # noqa: S608 - built of our own tables
        for parameter, value in _parameters(series, after=position).items():
            parts[-1] = parts[-1].replace(f"%({parameter})s", f"%({parameter}_{place})s")
            parameters[f"{parameter}_{place}"] = value
    found: dict[str, Amounts] = {name: {} for name in after}
    if not parts:
        return found
    names = list(after)
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts), parameters)
        for place, *row in cursor.fetchall():
            _add(found[names[place]], catalogue.get(names[place]), row)
    return found


def between(series: Series, *, after: int, until: int) -> Amounts:
    """Count the rows between two positions."""
    rows = _rows(series)
    return _count(series, f"WITH part AS ({_part(rows, rows.between)})", after=after, until=until)


def settle(series: Series, *, most: int) -> Amounts:
    """Count remembered rows that count now, at most so many, and forget them."""
    rows, table = _rows(series), UnsettledRow._meta.db_table
    due = f"""
    WITH due AS MATERIALIZED (
        SELECT known.row FROM {table} AS known
        JOIN {rows.table} AS counted ON counted.{rows.position} = known.row {rows.join}
        WHERE known.series = %(series)s AND ({rows.where}) LIMIT %(most)s
    ), forgotten AS (
        DELETE FROM {table} AS known USING due WHERE known.series = %(series)s AND known.row = due.row
        RETURNING known.row
    ), part AS (
        {_part(rows, f"counted.{rows.position} IN (SELECT row FROM forgotten)")}
    )
    """  # noqa: S608 - our own tables
    return _count(series, due, most=most)


def forget_deleted(series: Series) -> None:
    """Forget remembered rows that no longer exist."""
    rows = _rows(series)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            DELETE FROM {UnsettledRow._meta.db_table} AS known WHERE series = %s AND NOT EXISTS (
                SELECT FROM {rows.table} AS counted WHERE counted.{rows.position} = known.row
            )
            """,  # noqa: S608 - our own tables
            [series.name],
        )


def _rows(series: Series) -> Rows:
    assert series.rows is not None, series.name
    return series.rows


def _part(rows: Rows, which: str) -> str:
    """The rows that may count, with what is counted of them."""
    labels = ", ".join(f"coalesce(({label})::text, '')" for label in rows.labels)
    wanted = f"(({rows.where}) OR ({rows.may_follow}))" if rows.may_follow else f"({rows.where})"
    early = f" AND NOT ({rows.is_early})" if rows.is_early else ""
    return f"""
        SELECT counted.{rows.position} AS position, {rows.at} AS at, ({rows.seconds})::float8 AS seconds,
            ARRAY[{labels}]::text[] AS labels, ({rows.where}) AS counts
        FROM {rows.table} AS counted {rows.join} WHERE {which} AND {wanted}{early}
    """  # noqa: S608 - our own tables


def _count(series: Series, part: str, **values: Any) -> Amounts:
    """Count what is in `part`."""
    found: Amounts = {}
    with connection.cursor() as cursor:
        cursor.execute(_grouped(part), _parameters(series, **values))
        for row in cursor.fetchall():
            _add(found, series, row)
    return found


def _parameters(series: Series, **values: Any) -> dict[str, Any]:
    """
    The parameters of a statement.

    Upper bounds include their value, so durations and bounds are compared as negative numbers: the intervals of
    `width_bucket` include their lower bound.
    """
    bounds = [-bound for bound in reversed(series.bounds)] or [0.0]
    return {**_rows(series).values, **values, "series": series.name, "bounds": bounds}


def _grouped(part: str) -> str:
    return f"""
        {part}
        SELECT date_trunc('minute', at, 'UTC'), labels, width_bucket(-seconds, %(bounds)s::float8[]),
            count(*), coalesce(sum(seconds), 0), coalesce(max(seconds), 0)
        FROM part WHERE counts GROUP BY 1, 2, 3
    """  # noqa: S608 - built of our own tables


def _add(found: Amounts, series: Series, row: Sequence[Any]) -> None:
    minute, labels, place, number, seconds, maximum = row
    histogram = [0] * (len(series.bounds) + 1) if series.bounds else []
    if histogram and place is not None:
        histogram[len(series.bounds) - place] = number
    amount = Amount(count=number, seconds=seconds, maximum=maximum, histogram=histogram)
    found.setdefault((minute, tuple(labels)), Amount()).add(amount)


def known_labels(series: Series) -> list[Labels]:
    """Return the combinations of labels that have a total."""
    found = StatisticsTotal.objects.filter(series=series.name).values_list("labels", flat=True)
    return [tuple(labels) for labels in found]


def bounded(amounts: Amounts, known: Iterable[Labels]) -> Amounts:
    """Count new combinations of labels under `OTHER`, if there would be too many."""
    allowed = set(known)
    for labels in sorted({labels for _, labels in amounts} - allowed):
        if len(allowed) >= MOST_COMBINATIONS:
            break
        allowed.add(labels)
    found: Amounts = {}
    for (minute, labels), amount in amounts.items():
        counted_as = labels if labels in allowed else (OTHER,) * len(labels)
        found.setdefault((minute, counted_as), Amount()).add(amount)
    return found


def totals_of(amounts: Amounts) -> dict[Labels, Amount]:
    """Add up all minutes."""
    found: dict[Labels, Amount] = {}
    for (_, labels), amount in amounts.items():
        found.setdefault(labels, Amount()).add(amount)
    return found


def write(series: Series, amounts: Amounts, *, kept_since: dt.datetime) -> None:
    """Add amounts to the totals of a series, and to the buckets of minutes that are kept."""
    buckets = [
        StatisticsBucket(series=series.name, labels=list(labels), minute=minute, **dataclasses.asdict(amount))
        for (minute, labels), amount in amounts.items()
        if minute >= kept_since
    ]
    sums = [
        StatisticsTotal(
            series=series.name,
            labels=list(labels),
            count=amount.count,
            seconds=amount.seconds,
            histogram=amount.histogram,
        )
        for labels, amount in totals_of(amounts).items()
    ]
    values: Mapping[str, Any] = {"buckets": BUCKETS.as_json(buckets), "totals": TOTALS.as_json(sums)}
    if sums:
        with connection.cursor() as cursor:
            cursor.execute(ADD, values)


BUCKETS, TOTALS = statements.Table(StatisticsBucket), statements.Table(StatisticsTotal)

SUM = """
    count = known.count + EXCLUDED.count, seconds = known.seconds + EXCLUDED.seconds,
    histogram = ARRAY(
        SELECT coalesce(before, 0) + coalesce(more, 0)
        FROM unnest(known.histogram, EXCLUDED.histogram) WITH ORDINALITY AS place (before, more, position)
        ORDER BY position
    )
"""


def _adding(insert: str, table: str) -> str:
    return insert.replace(f"INSERT INTO {table} (", f"INSERT INTO {table} AS known (", 1)


ADD = f"""
WITH buckets AS (
    {_adding(BUCKETS.insert("buckets"), StatisticsBucket._meta.db_table)}
    ON CONFLICT (series, minute, labels) DO UPDATE
    SET {SUM}, maximum = greatest(known.maximum, EXCLUDED.maximum)
)
{_adding(TOTALS.insert("totals"), StatisticsTotal._meta.db_table)}
ON CONFLICT (series, labels) DO UPDATE SET {SUM}
"""  # noqa: S608 - our own tables
