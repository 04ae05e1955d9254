"""Notifications, their channels, and the preferences of customers."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from django.contrib.postgres.indexes import HashIndex
from django.db import connection, models
from django.db.models.functions import Lower, Now

from outbox.database.statements import columns


class Channel(models.TextChoices):
    """The channels to reach a customer. Each has its own queue, breaker and task."""

    EMAIL = "email", "e-mail"
    SMS = "sms", "SMS"
    PUSH = "push", "push"


class NotificationQuerySet(models.QuerySet["Notification"]):
    """Selections of notifications, and the claim that guards a send."""

    def unfinished(self) -> NotificationQuerySet:
        """Return the notifications that are still to be sent."""
        return self.filter(status__in=[Notification.Status.PENDING, Notification.Status.SENDING])

    def claim(self, pk: int, *, lease: dt.timedelta) -> Notification | None:
        """
        Claim a notification for one try; return None if it is done or another worker holds it.

        The returned version is the fencing token. `was_open` on the result is True if an earlier try may have
        reached the provider; after the claim this try may have as well.
        """
        values: dict[str, Any] = {
            "pk": pk,
            "lease": lease,
            "takeable": [
                str(status)
                for status in (
                    Notification.Status.PENDING,
                    Notification.Status.SENDING,
                    Notification.Status.FAILED,
                )
            ],
        }
        table = self.model._meta.db_table
        rows = self.raw(
            f"""
            UPDATE {table} AS notification
            SET status = 'sending',
                version = notification.version + 1,
                attempts = notification.attempts + 1,
                outcome_open = TRUE,
                lease_until = statement_timestamp() + %(lease)s
            FROM (
                SELECT id, outcome_open AS was_open, lease_until IS NOT NULL AS was_abandoned FROM {table}
                WHERE id = %(pk)s AND status = ANY(%(takeable)s)
                  AND (lease_until IS NULL OR lease_until < statement_timestamp())
                FOR UPDATE
            ) AS before
            WHERE notification.id = before.id
            RETURNING {columns(self.model, of="notification")}, before.was_open, before.was_abandoned
            """,  # noqa: S608 - the table's own name
            values,
        )
        return next(iter(rows), None)

    def write_claimed(self, *, lease: dt.timedelta, **known: Any) -> Notification | None:
        """
        Insert a notification that is claimed for its first try; return None if it exists already.

        One statement, because nearly all notifications begin this way.
        """
        values: dict[str, Any] = known | {"lease": lease}
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                INSERT INTO {self.model._meta.db_table} ({", ".join(known)}, status, version, attempts,
                    outcome_open, lease_until, provider_message_id, error)
                VALUES ({", ".join(f"%({name})s" for name in known)}, 'sending', 1, 1,
                    TRUE, statement_timestamp() + %(lease)s, '', '')
                ON CONFLICT (message_id, channel, recipient) DO NOTHING
                RETURNING {columns(self.model)}
                """,  # noqa: S608 - names of our own columns
                values,
            )
            row = cursor.fetchone()
        if row is None:
            return None
        written = self.model.from_db(
            self.db, [field.attname for field in self.model._meta.concrete_fields], row
        )
        written.was_open = False
        return written


class Notification(models.Model):
    """One text for one recipient through one channel, about one message. Never knowingly sent twice."""

    class Status(models.TextChoices):
        PENDING = "pending", "pending"
        SENDING = "sending", "sending"
        SENT = "sent", "sent"
        SUPPRESSED = "suppressed", "suppressed"
        FAILED = "failed", "failed"

    message_id = models.UUIDField(help_text="The message of the outbox that it tells of.")
    order_id = models.UUIDField(help_text="No foreign key: orders does not know this app.")
    order_number = models.CharField(max_length=20)
    channel = models.CharField(max_length=10, choices=Channel)
    template = models.CharField(max_length=50)
    recipient = models.CharField(max_length=4096, help_text="E-mail address, phone number or device token.")
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    version = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True, help_text="NULL while no worker holds it.")
    outcome_open = models.BooleanField(
        default=False, help_text="A try may have reached the provider without our knowing."
    )
    provider_message_id = models.CharField(max_length=300, blank=True)
    subject = models.CharField(max_length=250, blank=True)
    text = models.TextField(blank=True)
    html = models.TextField(blank=True)
    attempts = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True, blank=True, help_text="NULL until a provider accepted it.")

    objects = NotificationQuerySet.as_manager()

    was_open: bool
    """Set by `claim` and `write_claimed` only."""
    was_abandoned: bool = False
    """Set by `claim`: whether the previous worker never released it."""

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["message_id", "channel", "recipient"], name="one_notification_per_recipient"
            ),
            models.CheckConstraint(
                condition=models.Q(status="sent", sent_at__isnull=False)
                | (~models.Q(status="sent") & models.Q(sent_at__isnull=True)),
                name="sent_notifications_have_a_time",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["order_id"], name="notifications_by_order"),
            models.Index(fields=["order_number"], name="notifications_by_number"),
            models.Index(fields=["-created_at", "id"], name="notifications_newest_first"),
            models.Index(
                fields=["message_id"],
                condition=models.Q(status__in=["pending", "sending"]),
                name="notifications_unfinished",
            ),
            models.Index(fields=["channel", "-created_at", "id"], name="notifications_by_channel"),
            models.Index(
                fields=["status", "-created_at", "id"],
                condition=models.Q(status__in=["failed", "suppressed"]),
                name="notifications_not_sent",
            ),
            # Recipients may be longer than an entry of a B-tree.
            HashIndex(fields=["recipient"], name="notifications_by_recipient"),
            HashIndex(
                fields=["provider_message_id"],
                condition=~models.Q(provider_message_id=""),
                name="notifications_by_provider_id",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.template} by {self.channel} for {self.order_number}"


class Preference(models.Model):
    """Whether a customer wants notifications through a channel. Without a row they do."""

    email = models.EmailField(help_text="The customer's e-mail address, whatever the channel.")
    channel = models.CharField(max_length=10, choices=Channel)
    enabled = models.BooleanField(default=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(Lower("email"), "channel", name="one_preference_per_channel"),
        ]

    def __str__(self) -> str:
        return f"{self.email} {self.channel} {'on' if self.enabled else 'off'}"
