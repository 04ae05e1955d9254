"""Failed tries of consumers and of the relay, as rows."""

from __future__ import annotations

import uuid
from typing import Any

from django.db.models import QuerySet

from outbox.database import storable
from outbox.models import Attempt, DeadLetter


def record(
    *, consumer: str, message_id: uuid.UUID | str, error: Exception, outcome: Attempt.Outcome, **known: Any
) -> Attempt:
    """Record a try that failed with `error`; `known` holds further columns."""
    return Attempt.objects.create(
        consumer=consumer,
        message_id=message_id,
        outcome=outcome,
        error_class=type(error).__name__,
        error=storable.error(error),
        traceback=storable.traceback(error),
        **known,
    )


def since_resolved(consumer: str, message_id: uuid.UUID | str) -> QuerySet[Attempt]:
    """The failed tries of a message at a consumer, since the last time its dead letter was resolved."""
    tries = Attempt.objects.filter(consumer=consumer, message_id=message_id)
    resolved = (
        DeadLetter.objects.filter(consumer=consumer, message_id=message_id)
        .exclude(resolution=DeadLetter.Resolution.OPEN)
        .order_by("-resolved_at")
        .values_list("resolved_at", flat=True)
        .first()
    )
    return tries.filter(failed_at__gt=resolved) if resolved else tries
