"""Selects the notifications that may be deleted."""

from __future__ import annotations

import datetime as dt

from django.conf import settings
from django.db.models import Exists, OuterRef, QuerySet

from notifications.models import Notification
from outbox.models import DeadLetter, OutboxMessage


def spent(now: dt.datetime) -> QuerySet[Notification]:
    """
    Return notifications that have ended and are older than `NOTIFICATION_RETENTION_DAYS`.

    A notification is kept as long as its message, which would send it again, and as long as it may be replayed.
    """
    before = now - dt.timedelta(days=settings.NOTIFICATION_RETENTION_DAYS)
    about = OuterRef("message_id")
    return Notification.objects.exclude(status__in=["pending", "sending"]).filter(
        ~Exists(OutboxMessage.objects.filter(pk=about)),
        ~Exists(DeadLetter.objects.unresolved().filter(message_id=about)),
        created_at__lt=before,
    )
