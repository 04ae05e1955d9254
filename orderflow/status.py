"""How the outbox stands, in numbers: for `outbox_status`."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.conf import settings
from django.db.models import Count, Min
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

import celeryconfig
from outbox import broker, resilience
from outbox.models import DeadLetter, OutboxMessage

BREAKERS = ("payments", "warehouse", "email", "sms", "push")
MOST_COUNTED = 10_000
"""Rows that are counted exactly; more is told as "more than"."""


def read() -> dict[str, Any]:
    """The numbers, all read now; a broker that is down is told as such and harms nothing."""
    due = OutboxMessage.objects.due().aggregate(oldest=Min("not_before"))["oldest"]
    minute_ago = timezone.now() - dt.timedelta(minutes=1)
    return {
        "pending": _count(OutboxMessage.objects.undelivered()),
        "oldest_due_seconds": round((timezone.now() - due).total_seconds(), 1) if due else 0.0,
        "published_last_minute": _count(OutboxMessage.objects.filter(published_at__gte=minute_ago)),
        "parked": _count(OutboxMessage.objects.filter(status=OutboxMessage.Status.PARKED)),
        "dead_letters": dict(
            DeadLetter.objects.unresolved()
            .order_by("consumer")
            .values_list("consumer")
            .annotate(letters=Count("pk"))
        ),
        "queues": _queues(),
        "breakers": {name: resilience.breaker(name).state() for name in BREAKERS} if settings.REDIS_URL else {},
    }


def _count(rows: Any) -> int:
    return rows[: MOST_COUNTED + 1].count()


def _queues() -> dict[str, int] | str:
    try:
        return {queue: broker.waiting(queue) for queue in celeryconfig.QUEUES}
    except (BrokerError, OSError) as error:
        return f"the broker does not answer: {error}"
