"""
What is deleted, when, and what never is.

Never: open dead letters, the messages and attempts they speak of, and whatever an app holds
(`registry.hold`), for example the messages of orders that are not final. Resolved dead letters and
records of repairs stay too.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from outbox import crash_points, registry, telemetry
from outbox.models import Attempt, DeadLetter, InboxEntry, OutboxMessage, Verification

BATCH = 1000
"""Rows deleted in one transaction: short enough to hold up nobody."""


def prune(*, batch: int = BATCH) -> dict[str, int]:
    """Delete old published messages, attempts and inbox entries in batches; return the counts by table."""
    before = timezone.now() - dt.timedelta(days=settings.OUTBOX_RETENTION_DAYS)
    pruned = {
        "messages": _delete(_spent_messages(before), batch),
        "attempts": _delete(_spent_attempts(before), batch),
        "inbox entries": _delete(InboxEntry.objects.filter(taken_at__lt=before) & _forgettable_inbox(), batch),
        "verifications": _delete(Verification.objects.filter(ran_at__lt=before), batch),
    }
    telemetry.emit("retention.pruned", **{name.replace(" ", "_"): count for name, count in pruned.items()})
    return pruned


def _spent_messages(before: dt.datetime) -> QuerySet[OutboxMessage]:
    spent = OutboxMessage.objects.filter(
        ~Exists(DeadLetter.objects.unresolved().filter(message_id=OuterRef("pk"))),
        status=OutboxMessage.Status.PUBLISHED,
        published_at__lt=before,
    )
    held = Q()
    for query in registry.holds():
        held |= Q(pk__in=query)
    return spent.exclude(held) if held else spent


def _spent_attempts(before: dt.datetime) -> QuerySet[Attempt]:
    return Attempt.objects.filter(
        ~Exists(DeadLetter.objects.unresolved().filter(message_id=OuterRef("message_id"))),
        ~Exists(OutboxMessage.objects.filter(pk=OuterRef("message_id"))),
        failed_at__lt=before,
    )


def _forgettable_inbox() -> QuerySet[InboxEntry]:
    """Duplicate memory outlives replay memory: an entry goes only after its message has gone."""
    return InboxEntry.objects.filter(~Exists(OutboxMessage.objects.filter(pk=OuterRef("message_id"))))


def _delete(rows: QuerySet[Any], batch: int) -> int:
    total = 0
    while ids := list(rows.order_by("pk").values_list("pk", flat=True)[:batch]):
        total += rows.model.objects.filter(pk__in=ids).delete()[0]
        crash_points.reached("retention.batch_deleted")
    return total
