"""Plots: what happened in each step of a period, from the buckets and the rows that are not in them yet."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

from django.db import connection

from outbox.models import StatisticsBucket
from outbox.statistics import catalogue, counting, totals
from outbox.statistics.catalogue import Kind
from outbox.statistics.counting import Amount, Labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """
    What happened in one step: a number, and for durations their sum, maximum and histogram, in seconds.

    For a gauge, `count` is the number of samples and `seconds` their sum.
    """

    at: dt.datetime
    """When the step begins."""
    count: int
    seconds: float
    maximum: float
    histogram: Sequence[int]
    """Not cumulative; the last place is for durations longer than all bounds. Empty if there are none."""
    bounds: Sequence[float]

    @property
    def mean(self) -> float | None:
        """The mean of all durations or samples; None if there are none."""
        return self.seconds / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Return for example the median (0.5) of the durations, estimated; None if there are none."""
        return quantile(self.histogram, self.bounds, share, maximum=self.maximum)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One combination of labels of a series, with a point for each step."""

    labels: Mapping[str, str]
    points: Sequence[Point]


def read(*names: str, since: dt.datetime, until: dt.datetime, step: dt.timedelta) -> dict[str, list[Line]]:
    """
    Return the lines of series between `since` and `until`, by name, in the order of their labels.

    `since` and `until` are rounded down and up to minutes, and `step` is a whole number of them. A series in
    which nothing happened has no lines. Costs three queries however many series are read.

    Raises:
        ValueError: if `step` is not a positive number of whole minutes.
        outbox.statistics.catalogue.UnknownSeries: if no app has registered a series.
    """
    if step < dt.timedelta(minutes=1) or step % dt.timedelta(minutes=1):
        raise ValueError(f"a step is a whole number of minutes, not {step}")
    since = since.replace(second=0, microsecond=0)
    steps = -((since - until) // step)
    counted = [name for name in names if catalogue.get(name).kind is not Kind.GAUGE]
    found: dict[str, dict[Labels, dict[int, Amount]]] = {name: {} for name in names}
    with totals.snapshot():
        for name, labels, place, amount in _buckets(names, since, until, step):
            found[name].setdefault(labels, {}).setdefault(place, Amount()).add(amount)
        for name, amounts in counting.tails(totals.tails_of(counted)).items():
            for (minute, labels), amount in counting.bounded(amounts, found[name]).items():
                if since <= minute < until:
                    place = (minute - since) // step
                    found[name].setdefault(labels, {}).setdefault(place, Amount()).add(amount)
    return {
        name: [
            Line(
                labels=catalogue.get(name).named(labels),
                points=[_point(name, since + place * step, places.get(place)) for place in range(steps)],
            )
            for labels, places in sorted(lines.items())
        ]
        for name, lines in found.items()
    }


def quantile(
    histogram: Sequence[int], bounds: Sequence[float], share: float, *, maximum: float | None = None
) -> float | None:
    """
    Estimate a quantile from a histogram, as `histogram_quantile` of Prometheus does; None if it is empty.

    Durations are assumed to be spread evenly within a bucket. No estimate exceeds `maximum`, which is also the
    estimate beyond the last bound; without it, that is the last bound.
    """
    rank, seen, lower = share * sum(histogram), 0, 0.0
    if not sum(histogram):
        return None
    for bound, number in zip(bounds, histogram, strict=False):
        if number and seen + number >= rank:
            value = lower + (bound - lower) * max(0.0, rank - seen) / number
            return value if maximum is None else min(value, maximum)
        seen, lower = seen + number, bound
    return lower if maximum is None else maximum


def _point(name: str, at: dt.datetime, amount: Amount | None) -> Point:
    bounds = catalogue.get(name).bounds
    amount = amount or Amount()
    return Point(
        at=at,
        count=amount.count,
        seconds=amount.seconds,
        maximum=amount.maximum,
        histogram=amount.histogram,
        bounds=bounds,
    )


def _buckets(
    names: Sequence[str], since: dt.datetime, until: dt.datetime, step: dt.timedelta
) -> list[tuple[str, Labels, int, Amount]]:
    """What the buckets contain, by series, labels and step."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT series, labels, floor(extract(epoch FROM minute - %(since)s) / %(step)s)::int,
                sum(count), sum(seconds), max(maximum),
                json_agg(histogram) FILTER (WHERE cardinality(histogram) > 0)
            FROM {StatisticsBucket._meta.db_table}
            WHERE series = ANY(%(names)s) AND minute >= %(since)s AND minute < %(until)s
            GROUP BY 1, 2, 3
            """,  # noqa: S608 - our own table
            {"names": list(names), "since": since, "until": until, "step": step.total_seconds()},
        )
        return [
            (
                name,
                tuple(labels),
                place,
                Amount(
                    count=int(number),
                    seconds=seconds,
                    maximum=maximum,
                    histogram=[sum(column) for column in zip(*histograms or (), strict=True)],
                ),
            )
            for name, labels, place, number, seconds, maximum, histograms in cursor.fetchall()
        ]
