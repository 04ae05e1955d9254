"""
The outbox, the inbox and failed attempts.

`publisher`, `relay`, `inbox` and `consumer` write these rows; people do not edit them.
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import HashIndex
from django.db import models
from django.db.models.functions import Now

from outbox.contracts import Message
from outbox.database import uuid7


def new_message_id() -> uuid.UUID:
    """Return a UUIDv7: globally unique, and ordered by creation time."""
    return uuid7.new()


class OutboxMessageQuerySet(models.QuerySet["OutboxMessage"]):
    """Selections of messages by their state."""

    def undelivered(self) -> OutboxMessageQuerySet:
        """Return the messages that the relay still has to deliver."""
        return self.filter(status=OutboxMessage.Status.PENDING)

    def due(self) -> OutboxMessageQuerySet:
        """Return undelivered messages whose time has come and that no relay has claimed."""
        return self.undelivered().filter(not_before__lte=Now())


class OutboxMessage(models.Model):
    """One event that must reach its workflows, written in the transaction that made it true."""

    class Status(models.TextChoices):
        PENDING = "pending", "pending"
        PUBLISHED = "published", "published"
        PARKED = "parked", "parked"
        BURIED = "buried", "buried"

    id = models.UUIDField(primary_key=True, default=new_message_id, editable=False)
    event_name = models.CharField(max_length=200)
    event_version = models.PositiveSmallIntegerField()
    key = models.CharField(max_length=200, help_text="What the event is about, e.g. an invoice's id.")
    payload = models.JSONField()
    correlation_id = models.CharField(max_length=64)
    causation_id = models.CharField(
        max_length=64, blank=True, help_text="The message that led here; empty when none did."
    )
    trace = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now())
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    not_before = models.DateTimeField(
        db_default=Now(),
        help_text="The relay leaves the message alone until then. A claim, a postponement and a "
        "redelivery move it.",
    )
    claim = models.UUIDField(null=True, editable=False, help_text="The relay at work on it; NULL when none is.")
    workflows = ArrayField(
        models.CharField(max_length=200),
        default=list,
        help_text="What to start; empty means all subscribed. Written by older code only: see deliveries.",
    )
    redeliveries = models.PositiveIntegerField(default=0)
    attempts = models.PositiveIntegerField(
        default=0, help_text="Failed tries of the relay, outages not counted."
    )
    last_error = models.TextField(blank=True)
    published_at = models.DateTimeField(null=True, help_text="NULL until a broker first took it.")

    objects = OutboxMessageQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(
                fields=["not_before", "id"], condition=models.Q(status="pending"), name="outbox_undelivered"
            ),
            models.Index(fields=["key"], name="outbox_by_key"),
            models.Index(fields=["event_name"], condition=models.Q(status="parked"), name="outbox_parked"),
            models.Index(fields=["id"], condition=models.Q(status="buried"), name="outbox_buried"),
            models.Index(fields=["event_name", "id"], name="outbox_by_event"),
            HashIndex(fields=["correlation_id"], name="outbox_by_correlation"),
            models.Index(
                fields=["published_at"], condition=models.Q(status="published"), name="outbox_prunable"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event_name} {self.id}"

    def message(self, event: Any) -> Message:
        """Return the row as the envelope that its handlers get."""
        return Message.of(self, event)


class InboxEntry(models.Model):
    """Records that a consumer without a state of its own has handled a message."""

    consumer = models.CharField(max_length=200)
    message_id = models.UUIDField()
    taken_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "inbox entries"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["consumer", "message_id"], name="inbox_once_per_consumer"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["taken_at"], name="inbox_by_age"),
            models.Index(fields=["message_id"], name="inbox_by_message"),
        ]

    def __str__(self) -> str:
        return f"{self.consumer} took {self.message_id}"


class Attempt(models.Model):
    """One failed try of a consumer or of the relay, and what happens next."""

    class Outcome(models.TextChoices):
        RETRIED = "retried", "tried again at once"
        POSTPONED = "postponed", "redelivered later"
        WAITED = "waited", "waits, no attempt spent"
        LOST = "lost", "worker lost"
        BURIED = "buried", "given up"

    consumer = models.CharField(max_length=200)
    message_id = models.UUIDField()
    outcome = models.CharField(max_length=10, choices=Outcome)
    failed_at = models.DateTimeField(db_default=Now())
    next_try_at = models.DateTimeField(null=True, help_text="NULL when no further try is planned.")
    worker = models.CharField(max_length=200, blank=True)
    error_class = models.CharField(max_length=200)
    error = models.TextField()
    traceback = models.TextField(blank=True)
    delivery = models.CharField(
        max_length=32, blank=True, db_default="", help_text="The delivery whose worker was lost, else empty."
    )

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["message_id", "consumer"], name="attempts_of_message"),
            models.Index(fields=["-failed_at", "-id"], name="attempts_newest_first"),
            models.Index(fields=["consumer", "-failed_at", "-id"], name="attempts_by_consumer"),
            models.Index(fields=["error_class", "-failed_at", "-id"], name="attempts_by_error"),
        ]

    def __str__(self) -> str:
        return f"{self.consumer}: {self.error_class}"
