"""
The last 24 hours in half-hours, from the buckets that `outbox.statistics` counts: four plots.

A half-hour of which nothing is known is drawn as such, not as 0.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

from django.urls import reverse

from orderflow.ops.overview import amounts
from orderflow.ops.overview.plots import Line, Plot, Value
from outbox.statistics import reading
from outbox.statistics.reading import Point

STEP = dt.timedelta(minutes=30)
STEPS = 48

FINISHED, OLDEST_DUE = "orders.finished", "messages.oldest_due"
BURIED, RESOLVED = "dead_letters.buried", "dead_letters.resolved"

OUTCOMES = {"fulfilled": "one", "rejected": "two", "cancelled": "three"}
"""The final states of orders, and how each one is drawn."""

Lines = Sequence[reading.Line]


def read(at: dt.datetime, *, orders: bool, oldest_due: bool, dead_letters: bool) -> list[Plot]:
    """
    Read the wanted plots of the 24 hours that end now, `at` being the time of the database.

    Three queries, of the buckets and of the rows that are not in them yet.
    """
    names = [FINISHED] * orders + [OLDEST_DUE] * oldest_due + [BURIED, RESOLVED] * dead_letters
    if not names:
        return []
    newest = at.replace(minute=at.minute // 30 * 30, second=0, microsecond=0)
    starts = [newest - place * STEP for place in reversed(range(STEPS))]
    found = reading.read(*names, since=starts[0], until=newest + STEP, step=STEP)
    plots = []
    if orders:
        plots += [_orders(starts, found[FINISHED]), _durations(starts, found[FINISHED])]
    if oldest_due:
        plots.append(_oldest_due(starts, found[OLDEST_DUE]))
    if dead_letters:
        plots.append(_dead_letters(starts, found[BURIED], found[RESOLVED]))
    return plots


def _orders(starts: Sequence[dt.datetime], found: Lines) -> Plot:
    """Orders by outcome."""
    numbers = {
        outcome: _counts([line for line in found if line.labels["outcome"] == outcome]) for outcome in OUTCOMES
    }
    totals = {outcome: sum(counts) for outcome, counts in numbers.items()}
    return Plot(
        slug="orders",
        title="Orders that became final, by outcome",
        lines=[
            Line(name=outcome, look=look, values=numbers[outcome], now=amounts.short(totals[outcome]))
            for outcome, look in OUTCOMES.items()
        ],
        starts=starts,
        step=STEP,
        stacked=True,
        summary=f"{', '.join(f'{amounts.exact(total)} {outcome}' for outcome, total in totals.items())}.",
        url=reverse("admin:orders_order_changelist"),
        link="All orders",
    )


def _durations(starts: Sequence[dt.datetime], found: Lines) -> Plot:
    """The median and the 95th percentile of the time from placed to final, of all outcomes together."""
    median, slow = ([_quantile(points, share) for points in _steps(found)] for share in (0.5, 0.95))
    newest, slowest = (_newest(median), _newest(slow)), max(_measured(slow), default=None)
    return Plot(
        slug="durations",
        title="From placed to final: median and 95th percentile",
        lines=[
            Line(name="median (p50)", look="one", values=median, now=_in_words(newest[0])),
            Line(name="95th percentile (p95)", look="two", values=slow, now=_in_words(newest[1])),
        ],
        starts=starts,
        step=STEP,
        seconds=True,
        summary="No order became final."
        if slowest is None
        else f"Lately half of the orders took at most {_in_words(newest[0])}, and 95 % at most "
        f"{_in_words(newest[1])}. In the slowest half-hour, 95 % took at most {_in_words(slowest)}.",
    )


def _oldest_due(starts: Sequence[dt.datetime], found: Lines) -> Plot:
    """The longest that any message had been due; a half-hour without a sample is not known."""
    values: list[Value] = [
        max((point.maximum for point in points if point.count), default=None) for points in _steps(found)
    ]
    longest = max(_measured(values), default=None)
    return Plot(
        slug="longest-due",
        title="Oldest due message",
        lines=[Line(name="longest wait", look="one", values=values, now=_in_words(_newest(values)))],
        starts=starts,
        step=STEP,
        seconds=True,
        summary="Nothing has been measured."
        if longest is None
        else f"No message that was due waited longer than {_in_words(longest)}.",
        url=f"{reverse('admin:outbox_outboxmessage_changelist')}?status__exact=pending",
        link="Pending messages",
    )


def _dead_letters(starts: Sequence[dt.datetime], buried: Lines, resolved: Lines) -> Plot:
    """Dead letters that were buried, against those that were resolved."""
    came, went = _counts(buried), _counts(resolved)
    return Plot(
        slug="dead-letters",
        title="Dead letters: buried against resolved",
        lines=[
            Line(name="buried", look="two", values=came, now=amounts.short(sum(came))),
            Line(name="resolved", look="one", values=went, now=amounts.short(sum(went))),
        ],
        starts=starts,
        step=STEP,
        summary=f"{amounts.exact(sum(came))} buried, {amounts.exact(sum(went))} resolved.",
        url=reverse("admin:outbox_deadletter_changelist"),
        link="Open dead letters",
    )


def _steps(found: Lines) -> list[Sequence[Point]]:
    """The points of all lines, by step; none of them in any step if there is no line."""
    return list(zip(*(line.points for line in found), strict=True)) or [()] * STEPS


def _counts(found: Lines) -> list[float]:
    return [float(sum(point.count for point in points)) for points in _steps(found)]


def _quantile(points: Sequence[Point], share: float) -> float:
    """A quantile over several lines; NaN if nothing was measured."""
    measured = [point for point in points if point.histogram]
    if not measured:
        return math.nan
    histogram = [sum(column) for column in zip(*(point.histogram for point in measured), strict=True)]
    longest = max(point.maximum for point in measured)
    found = reading.quantile(histogram, measured[0].bounds, share, maximum=longest)
    return math.nan if found is None else found


def _measured(values: Sequence[Value]) -> list[float]:
    return [value for value in values if value is not None and not math.isnan(value)]


def _newest(values: Sequence[Value]) -> Value:
    return next(reversed(_measured(values)), None)


def _in_words(value: Value) -> str:
    return "none" if value is None else amounts.duration(value)
