"""
Deliveries under way, and the state of the relay, the probes and the periodic tasks.

`deliveries`, `probes`, `relay`, `listener` and `periodic` write these rows; people do not edit them.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class Delivery(models.Model):
    """
    One unfinished delivery of a message to one of its workflows. It is deleted when the workflow has ended.

    A copy of the message carries the delivery's `generation`. Copies with an older generation, or of a deleted
    delivery, are stale and are ignored.
    """

    class Status(models.TextChoices):
        WAITING = "waiting", "waits for its time"
        SENT = "sent", "is with the broker or a worker"

    pk = models.CompositePrimaryKey("message_id", "workflow")
    message_id = models.UUIDField()
    workflow = models.CharField(max_length=200)
    generation = models.PositiveIntegerField(help_text="The redeliveries of its message when it was asked for.")
    status = models.CharField(max_length=10, choices=Status)
    queue = models.CharField(max_length=200, blank=True, db_default="", help_text="Where its copy waits.")
    not_before = models.DateTimeField(
        db_default=Now(), help_text="The relay leaves it alone until then. A claim and a postponement move it."
    )
    claim = models.UUIDField(null=True, help_text="The relay that is about to send it; NULL when none is.")
    batch = models.UUIDField(null=True, help_text="The relay's claim with which its first copy was sent.")
    sent_at = models.DateTimeField(
        db_default=Now(),
        help_text="When its copy was sent or last got on; in the future for a retry.",
    )
    losses = models.PositiveSmallIntegerField(db_default=0, help_text="Copies in a row that were found lost.")
    attempts = models.PositiveIntegerField(
        db_default=0, help_text="Failed tries of the relay, outages not counted."
    )
    last_error = models.TextField(blank=True, db_default="")

    class Meta:
        verbose_name_plural = "deliveries"
        indexes: ClassVar = [
            models.Index(
                fields=["not_before", "message_id"],
                condition=models.Q(status="waiting"),
                name="deliveries_waiting",
            ),
            models.Index(
                fields=["queue", "sent_at"], condition=models.Q(status="sent"), name="deliveries_sent"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.message_id} to {self.workflow}"


class QueueProbe(models.Model):
    """
    A task that only records its return, which proves that all earlier messages have left the queue.

    Probes that can prove nothing more are deleted.
    """

    queue = models.CharField(max_length=200)
    sent_at = models.DateTimeField(db_default=Now())
    returned_at = models.DateTimeField(null=True, help_text="NULL while it waits in the queue, or is lost.")
    batch = models.UUIDField(
        null=True, help_text="The relay's claim with which it was sent; NULL for the sweep's."
    )
    waiting = models.PositiveIntegerField(
        null=True, help_text="The queue's length when it was sent; NULL when nobody had to ask."
    )

    def __str__(self) -> str:
        return f"probe {self.pk} of {self.queue}"


class QueueWatch(models.Model):
    """One row: since when the queues have been watched without a break. Earlier probes prove nothing."""

    since = models.DateTimeField(db_default=Now())
    looked_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "queue watches"

    def __str__(self) -> str:
        return f"watched since {self.since:%Y-%m-%d %H:%M:%S}"


class RelayState(models.Model):
    """One row: whether a relay sleeps and must be notified of the next message."""

    sleeping = models.BooleanField(default=False)

    def __str__(self) -> str:
        return "sleeping" if self.sleeping else "awake"


class PeriodicRun(models.Model):
    """When a periodic task last ran, by the database's clock; see `outbox.periodic`."""

    name = models.CharField(primary_key=True, max_length=200, help_text="The task, e.g. outbox.tasks.drain.")
    first_began_at = models.DateTimeField()
    last_began_at = models.DateTimeField()
    last_ended_at = models.DateTimeField(null=True, help_text="NULL until it was done for the first time.")
    last_error = models.TextField(blank=True, help_text="Why it failed the last time; empty when it did not.")

    def __str__(self) -> str:
        return self.name
