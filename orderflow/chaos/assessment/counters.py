"""
Whether the counters that Prometheus reads equal the rows, after workers, relay and database were killed.

The rows are counted anew here, without the statements of the roll-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Count, QuerySet

from notifications.models import Notification
from orderflow.chaos.assessment.promises import Finding
from orders.models import Order
from orders.moves import FINAL
from outbox.models import Attempt, DeadLetter
from outbox.statistics import totals

RULE = "counter wrong"

Counts = Mapping[tuple[str, ...], int]


def compare() -> list[Finding]:
    """Return the counters that differ from their rows. Rows must not have been deleted by retention."""
    with totals.snapshot():
        rows = _rows()
        counted = totals.read(list(rows))
    found = {
        name: {labels: amount.count for labels, amount in by_labels.items() if amount.count}
        for name, by_labels in counted.items()
    }
    return [
        Finding(rule=RULE, subject=name, detail=f"{found.get(name)} instead of {dict(expected)}")
        for name, expected in rows.items()
        if found.get(name) != expected
    ]


def _rows() -> dict[str, Counts]:
    ended = Notification.objects.filter(status__in=[Notification.Status.SENT, Notification.Status.SUPPRESSED])
    orders = Order.objects.count()
    return {
        "orders.placed": {(): orders} if orders else {},
        "orders.finished": _by(Order.objects.filter(status__in=FINAL), "status"),
        "attempts.failed": _by(Attempt.objects.all(), "consumer", "outcome"),
        "dead_letters.buried": _by(DeadLetter.objects.all(), "consumer"),
        "notifications.ended": _by(ended, "channel", "status"),
    }


def _by(rows: QuerySet[Any, Any], *fields: str) -> Counts:
    grouped = rows.order_by().values_list(*fields).annotate(Count("pk"))
    return {tuple(map(str, labels)): count for *labels, count in grouped}
