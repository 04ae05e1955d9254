"""Counters and histograms, from the totals that `outbox.statistics` keeps. A label that never occurred is 0."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from celery import current_app

from orderflow.metrics.descriptions import BY_NAME, CONSUMER, Readings, Value
from outbox.consumer import ConsumerTask
from outbox.statistics import catalogue, totals
from outbox.statistics.counting import Amount, Labels

LATE = "no"
"""The label of orders that did not become final in time; see `orders.statistics`."""

Counts = Mapping[Labels, Amount]


def read() -> Readings:
    """Return all counters, in the caller's transaction. One whose rows are not rolled up yet is absent."""
    found, readings = totals.read(), Readings()

    def add(metric: str, series: str, values: Mapping[Labels, float]) -> None:
        if series in found:
            readings[metric] = _with_zeros(metric, values)

    def simply(series: str) -> dict[Labels, float]:
        return {labels: amount.count for labels, amount in found.get(series, {}).items()}

    for metric, series in {
        "orderflow_orders_placed_total": "orders.placed",
        "orderflow_orders_total": "orders.finished",
        "orderflow_outbox_published_total": "messages.published",
        "orderflow_attempts_total": "attempts.failed",
        "orderflow_dead_letters_total": "dead_letters.buried",
        "orderflow_dead_letters_resolved_total": "dead_letters.resolved",
    }.items():
        add(metric, series, simply(series))
    due = simply("orders.due")
    add("orderflow_orders_due_total", "orders.due", {(): sum(due.values())})
    add("orderflow_orders_late_total", "orders.due", {(): due.get((LATE,), 0)})
    add("orderflow_message_copies_total", "attempts.failed", _copies(simply("attempts.failed")))
    if "orders.finished" in found:
        readings["orderflow_order_duration_seconds"] = _histogram("orders.finished", found["orders.finished"])
    if "notifications.ended" in found and "notifications.failed" in found:
        ended = simply("notifications.ended")
        ended |= {(channel, "failed"): count for (channel,), count in simply("notifications.failed").items()}
        readings["orderflow_notifications_total"] = _with_zeros("orderflow_notifications_total", ended)
    return readings


def _copies(attempts: Mapping[Labels, float]) -> dict[Labels, float]:
    kinds = {"postponed": "redelivery", "waited": "redelivery", "lost": "lost"}
    found: dict[Labels, float] = {}
    for (_, outcome), count in attempts.items():
        if kind := kinds.get(outcome):
            found[(kind,)] = found.get((kind,), 0) + count
    return found


def _with_zeros(metric: str, values: Mapping[Labels, float]) -> list[Value]:
    return [Value(value, labels) for labels, value in sorted((_zeros(metric) | dict(values)).items())]


def _zeros(metric: str) -> dict[Labels, float]:
    """
    A zero for each combination of labels, if all of them are known beforehand. Prometheus sees no increase in a
    series that begins with its first count: the first dead letter of a task would be missing.
    """
    known: Iterable[str | Sequence[str]] = BY_NAME[metric].labels.values()
    fixed = [
        _consumers() if values == CONSUMER else values
        for values in known
        if values == CONSUMER or not isinstance(values, str)
    ]
    if len(fixed) < len(BY_NAME[metric].labels):
        return {}
    return dict.fromkeys(itertools.product(*fixed), 0.0)


def _consumers() -> list[str]:
    """The tasks that handle messages. What else gives up, such as the relay, begins when it first does."""
    return [name for name, task in current_app.tasks.items() if isinstance(task, ConsumerTask)]


def _histogram(series: str, counts: Counts) -> list[Value]:
    bounds = catalogue.get(series).bounds
    outcomes = {labels: Amount() for labels in _zeros("orderflow_order_duration_seconds")} | dict(counts)
    return [
        Value(amount.seconds, labels, buckets=_cumulative(amount.histogram, bounds))
        for labels, amount in sorted(outcomes.items())
    ]


def _cumulative(histogram: Sequence[int], bounds: Sequence[float]) -> list[tuple[str, int]]:
    numbers = histogram or [0] * (len(bounds) + 1)
    upper = [*(str(bound) for bound in bounds), "+Inf"]
    return list(zip(upper, itertools.accumulate(numbers), strict=True))
