"""The series of the outbox itself."""

from __future__ import annotations

from outbox import status
from outbox.models import Attempt, DeadLetter, OutboxMessage
from outbox.statistics.catalogue import Rows, count, gauge

SERIES = [
    count(
        "messages.published",
        "Messages that a broker has accepted. One that is redelivered to all its workflows counts again.",
        rows=Rows(
            table=OutboxMessage._meta.db_table,
            position="published_at",
            is_time=True,
            also="counted.status = 'published'",
            at="counted.published_at",
        ),
    ),
    gauge(
        "messages.oldest_due",
        "For how many seconds the oldest message, or redelivery to one workflow, has been due.",
        sample=status.oldest_due_seconds,
    ),
    count(
        "attempts.failed",
        "Failed tries of consumers and of the relay, by what followed.",
        labels=("consumer", "outcome"),
        rows=Rows(
            table=Attempt._meta.db_table,
            at="counted.failed_at",
            labels=("counted.consumer", "counted.outcome"),
        ),
    ),
    count(
        "dead_letters.buried",
        "Dead letters, by what gave up.",
        labels=("consumer",),
        rows=Rows(table=DeadLetter._meta.db_table, at="counted.buried_at", labels=("counted.consumer",)),
    ),
    count(
        "dead_letters.resolved",
        "Dead letters that recovered or were discarded.",
        labels=("resolution",),
        rows=Rows(
            table=DeadLetter._meta.db_table,
            at="coalesce(counted.resolved_at, counted.buried_at)",
            where="counted.resolution NOT IN ('open', 'replaying')",
            may_follow="counted.resolution IN ('open', 'replaying')",
            labels=("counted.resolution",),
        ),
    ),
]
