"""
What is counted of notifications: those that were sent or not wanted, and those that were given up.

One that was given up may be sent later, when its dead letter is replayed; it then counts under both.
"""

from __future__ import annotations

from notifications.models import Notification
from outbox.models import Attempt
from outbox.statistics.catalogue import Rows, count

TASK = "notifications.tasks.send_"

SERIES = [
    count(
        "notifications.ended",
        "Notifications that were sent, or suppressed because the customer does not want them.",
        labels=("channel", "outcome"),
        rows=Rows(
            table=Notification._meta.db_table,
            at="coalesce(counted.sent_at, counted.created_at)",
            where="counted.status IN ('sent', 'suppressed')",
            may_follow="counted.status IN ('pending', 'sending', 'failed')",
            labels=("counted.channel", "counted.status"),
        ),
    ),
    count(
        "notifications.failed",
        "Notifications that were given up: each has a dead letter.",
        labels=("channel",),
        rows=Rows(
            table=Attempt._meta.db_table,
            at="counted.failed_at",
            where=f"counted.outcome = 'buried' AND starts_with(counted.consumer, '{TASK}')",
            labels=(f"substr(counted.consumer, {len(TASK) + 1})",),
        ),
    ),
]
