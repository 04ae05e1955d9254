"""
The roll-up: counts new rows into buckets and totals, each row once.

A row is visible only when its transaction ends, so rows may appear behind others that were written later. The
position of the newest row is therefore sampled; one run later, the next transaction id is noted beside it; and
when all transactions before that id have ended, every row up to the sampled position is visible or never will
be. No clock is involved, except for series whose position is a time: their latest buckets are compared with the
rows every hour, and while the clock is behind the cursor.

The buckets, the totals and the cursor change in one transaction under a lock, so a run that is killed has
counted nothing, and of two runs one does the work.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import time
from typing import Any

from django.db import connection, transaction
from django.db.models import Sum
from django.db.models.functions import Now

from outbox import crash_points
from outbox.database import clock
from outbox.models import StatisticsBucket, StatisticsCursor
from outbox.statistics import catalogue, counting
from outbox.statistics.catalogue import Series
from outbox.statistics.counting import Amount

EVERY = dt.timedelta(minutes=1)

KEPT = dt.timedelta(days=8)
"""How long minutes are kept for plots. Totals are kept for ever."""

PIECE = 20_000
"""Rows counted in one transaction: about a tenth of a second."""

MOST_SAMPLES = 3
"""Positions that wait for older transactions. One is added in each run, as long as there are not that many."""

RECOUNTED = dt.timedelta(hours=26)
"""How far back buckets of times are compared with their rows. Shorter than any retention of rows allows."""

RECOUNTED_EVERY = dt.timedelta(hours=1)


@dataclasses.dataclass(frozen=True)
class _Transactions:
    """The oldest transaction id that has not ended, and the next one that will be assigned."""

    oldest: int
    next: int


def roll_up(*, within: dt.timedelta | None = None) -> int:
    """
    Count the rows of all series, and sample the gauges; return the number of counted rows.

    Starts no piece later than `within` after the first; the next run continues. So a long history is counted
    in bounded pieces.
    """
    counted, until = 0, math.inf if within is None else time.monotonic() + within.total_seconds()
    for series in catalogue.series():
        if series.sample is not None:
            _sample(series)
            crash_points.reached("statistics.sampled")
        else:
            counted += _roll_up(series, until)
    StatisticsBucket.objects.filter(minute__lt=Now() - KEPT).delete()
    return counted


def _roll_up(series: Series, until: float) -> int:
    counted = _settle(series, until)
    crash_points.reached("statistics.settled")
    _watch(series)
    crash_points.reached("statistics.watched")
    while True:
        found, is_done = _fold_piece(series)
        crash_points.reached("statistics.counted")
        counted += found
        if is_done or time.monotonic() >= until:
            return counted


def _sample(series: Series) -> None:
    """Add a sample to the bucket of this minute. Two runs in a minute add two: their maximum counts."""
    assert series.sample is not None
    value = float(series.sample())
    now = clock.now()
    minute = now.replace(second=0, microsecond=0)
    amount = Amount(count=1, seconds=value, maximum=value)
    counting.write(series, {(minute, ()): amount}, kept_since=now - KEPT)


def _watch(series: Series) -> None:
    """Sample the newest position, and note the next transaction id beside the previous one."""
    assert series.rows is not None
    with transaction.atomic(), connection.cursor() as cursor:
        StatisticsCursor.objects.get_or_create(series=series.name)
        row = _locked(series)
        if row is None:
            return
        known = _transactions(cursor)
        samples: list[tuple[int, int | None]] = [_of_this_server(sample, known) for sample in row.samples]
        samples = [(position, barrier or known.next) for position, barrier in samples]
        if len(samples) < MOST_SAMPLES:
            cursor.execute(series.rows.newest)
            samples.append((cursor.fetchone()[0], None))
        row.samples = samples
        row.save(update_fields=["samples"])


def _of_this_server(sample: Any, known: _Transactions) -> tuple[int, int | None]:
    """A sample, without its transaction id if that was assigned by another server, as after a restored dump."""
    position, barrier = sample
    return position, None if barrier and barrier > known.next else barrier


def _fold_piece(series: Series) -> tuple[int, bool]:
    """Count the next rows that may be counted; return how many, and whether these were all."""
    assert series.rows is not None
    with transaction.atomic():
        row = _locked(series)
        if row is None:
            return 0, True
        with connection.cursor() as cursor:
            if series.rows.is_time and _is_behind(cursor, series, row.counted_until):
                return _recount(series, row), True
            oldest = _transactions(cursor).oldest
            ready = [position for position, barrier in row.samples if barrier and barrier <= oldest]
            if not ready:
                return 0, True
            until, is_last = _end_of_piece(cursor, series, after=row.counted_until, until=max(ready))
        amounts = _bounded(series, counting.fold(series, after=row.counted_until, until=until))
        counting.write(series, amounts, kept_since=clock.now() - KEPT)
        row.counted_until = max(row.counted_until, until)
        if is_last:
            row.samples = [sample for sample in row.samples if sample[0] not in ready]
        counted = sum(amount.count for amount in amounts.values())
        if is_last and series.rows.is_time and _is_to_be_recounted(row):
            counted += _recount(series, row)
        row.save()
        crash_points.reached("statistics.folded")
    return counted, is_last


def _locked(series: Series) -> StatisticsCursor | None:
    """The cursor; None if another run is at work on the series."""
    return StatisticsCursor.objects.select_for_update(skip_locked=True).filter(pk=series.name).first()


def _transactions(cursor: Any) -> _Transactions:
    cursor.execute(
        """
        SELECT pg_snapshot_xmin(current)::text::bigint, pg_snapshot_xmax(current)::text::bigint
        FROM pg_current_snapshot() AS current
        """
    )
    return _Transactions(*cursor.fetchone())


def _is_behind(cursor: Any, series: Series, counted_until: int) -> bool:
    """Whether the clock was set back, to before the cursor."""
    assert series.rows is not None
    cursor.execute(series.rows.newest)
    return bool(cursor.fetchone()[0] <= counted_until)


def _end_of_piece(cursor: Any, series: Series, *, after: int, until: int) -> tuple[int, bool]:
    """Where the next piece ends, and whether it is the last one. Rows with the same position stay together."""
    assert series.rows is not None
    rows, is_last = series.rows, True
    values = {**rows.values, "after": after, "until": until, "piece": PIECE}
    cursor.execute(
        f"""
        SELECT {rows.number} FROM {rows.table} AS counted WHERE {rows.between}
        ORDER BY counted.{rows.position} OFFSET %(piece)s - 1 LIMIT 1
        """,  # noqa: S608 - our own tables
        values,
    )
    if (found := cursor.fetchone()) and found[0] < until:
        until, is_last = found[0], False
    if rows.is_early:
        cursor.execute(
            f"""
            SELECT min({rows.number}) FROM {rows.table} AS counted {rows.join}
            WHERE {rows.between} AND ({rows.where}) AND ({rows.is_early})
            """,  # noqa: S608 - our own tables
            values | {"until": until},
        )
        if early := cursor.fetchone()[0]:
            return early - 1, True
    return until, is_last


def _settle(series: Series, until: float) -> int:
    """Count remembered rows that count now."""
    if not (series.rows and series.rows.may_follow):
        return 0
    counted = 0
    while True:
        with transaction.atomic():
            row = _locked(series)
            if row is None:
                return counted
            amounts = _bounded(series, counting.settle(series, most=PIECE))
            counting.write(series, amounts, kept_since=clock.now() - KEPT)
            if not amounts and _is_to_be_recounted(row):
                counting.forget_deleted(series)
                row.recounted_at = clock.now()
                row.save(update_fields=["recounted_at"])
        counted += (found := sum(amount.count for amount in amounts.values()))
        if found < PIECE or time.monotonic() >= until:
            return counted


def _is_to_be_recounted(row: StatisticsCursor) -> bool:
    now = clock.now()
    last = row.recounted_at
    return last is None or not now - RECOUNTED_EVERY < last <= now


def _recount(series: Series, row: StatisticsCursor) -> int:
    """
    Compare the buckets of times up to the cursor with their rows, and add what is missing.

    A row that was written while the clock was behind the cursor is missing. Nothing is subtracted: the time of
    a row may change when the same thing happens again, which counts twice.
    """
    now = clock.now()
    since = (now - RECOUNTED).replace(second=0, microsecond=0)
    after = int(since.timestamp()) * 1_000_000 - 1
    known = {
        (minute, tuple(labels)): count
        for minute, labels, count in StatisticsBucket.objects.filter(series=series.name, minute__gte=since)
        .values_list("minute", "labels")
        .annotate(Sum("count"))
    }
    missing = {}
    for key, amount in _bounded(series, counting.between(series, after=after, until=row.counted_until)).items():
        if (short := amount.count - known.get(key, 0)) > 0:
            missing[key] = Amount(count=short)
    counting.write(series, missing, kept_since=now - KEPT)
    row.recounted_at = now
    row.save(update_fields=["recounted_at"])
    return sum(amount.count for amount in missing.values())


def _bounded(series: Series, amounts: counting.Amounts) -> counting.Amounts:
    return counting.bounded(amounts, counting.known_labels(series)) if series.labels and amounts else amounts
