"""When notifications are deleted."""

from __future__ import annotations

import datetime as dt

from django.conf import settings
from django.db.models import Exists, OuterRef, QuerySet

from notifications.models import Notification
from outbox.models import DeadLetter, OutboxMessage


def spent(now: dt.datetime) -> QuerySet[Notification]:
    """
    Notifications older than `NOTIFICATION_RETENTION_DAYS` that have ended.

    One is never deleted before its message, of which it would be sent again, or while it may be replayed.
    """
    before = now - dt.timedelta(days=settings.NOTIFICATION_RETENTION_DAYS)
    about = OuterRef("message_id")
    return Notification.objects.exclude(status__in=["pending", "sending"]).filter(
        ~Exists(OutboxMessage.objects.filter(pk=about)),
        ~Exists(DeadLetter.objects.unresolved().filter(message_id=about)),
        created_at__lt=before,
    )
