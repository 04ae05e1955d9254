"""
The outbox, the inbox, failed attempts and dead letters.

Every row here is machinery: written by `publisher`, `relay`, `inbox`, `consumer` and `dead_letters`,
read by everybody, edited by nobody.
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

import uuid6
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from outbox.contracts import Message


def new_message_id() -> uuid.UUID:
    """A UUIDv7: unique everywhere, and in the order of its making."""
    return uuid.UUID(int=uuid6.uuid7().int)


class OutboxMessageQuerySet(models.QuerySet["OutboxMessage"]):
    """Selections of messages by where they stand."""

    def undelivered(self) -> OutboxMessageQuerySet:
        """What the relay still has to do something about."""
        return self.filter(status=OutboxMessage.Status.PENDING)

    def due(self) -> OutboxMessageQuerySet:
        """Undelivered messages whose time has come and that no relay has claimed."""
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
    key = models.CharField(max_length=200, help_text="What the event is about: the order's id.")
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
        models.CharField(max_length=200), default=list, help_text="What to start; empty means all subscribed."
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
            models.Index(
                fields=["published_at"], condition=models.Q(status="published"), name="outbox_prunable"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event_name} {self.id}"

    def message(self, event: Any) -> Message:
        """The row as the envelope its handlers get."""
        return Message.of(self, event)


class RelayState(models.Model):
    """One row: whether a relay sleeps and wants to be notified of the next message."""

    sleeping = models.BooleanField(default=False)

    def __str__(self) -> str:
        return "sleeping" if self.sleeping else "awake"


class InboxEntry(models.Model):
    """That a consumer without a state of its own has taken a message into effect."""

    consumer = models.CharField(max_length=200)
    message_id = models.UUIDField()
    taken_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "inbox entries"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["consumer", "message_id"], name="inbox_once_per_consumer"),
        ]
        indexes: ClassVar = [models.Index(fields=["taken_at"], name="inbox_by_age")]

    def __str__(self) -> str:
        return f"{self.consumer} took {self.message_id}"


class Attempt(models.Model):
    """One try of a consumer that did not succeed, and what happens next."""

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

    class Meta:
        indexes: ClassVar = [models.Index(fields=["message_id", "consumer"], name="attempts_of_message")]

    def __str__(self) -> str:
        return f"{self.consumer}: {self.error_class}"


class DeadLetterQuerySet(models.QuerySet["DeadLetter"]):
    """Selections of dead letters."""

    def unresolved(self) -> DeadLetterQuerySet:
        """Those that nobody has replayed or discarded yet."""
        return self.filter(resolution=DeadLetter.Resolution.OPEN)


class DeadLetter(models.Model):
    """
    What could not be finished, with all that is known about it.

    Resolving a letter never deletes it. `message_id` is NULL when what failed never became a message
    that could be read; such a letter can be discarded, not replayed.
    """

    class Resolution(models.TextChoices):
        OPEN = "open", "open"
        REPLAYED = "replayed", "replayed"
        DISCARDED = "discarded", "discarded"

    class Source(models.TextChoices):
        RELAY = "relay", "relay"
        TASK = "task", "task"
        WORKER = "worker", "worker"
        BROKER = "broker", "broker"

    source = models.CharField(max_length=10, choices=Source)
    consumer = models.CharField(max_length=200, help_text="What gave up, e.g. orders.tasks.charge.")
    message_id = models.UUIDField(null=True, help_text="NULL: what failed carried no readable message id.")
    key = models.CharField(max_length=200, blank=True, help_text="The order's id, where known.")
    event_name = models.CharField(max_length=200, blank=True)
    workflow = models.CharField(max_length=200, blank=True, help_text="What a replay starts; empty means all.")
    task_id = models.CharField(max_length=200, blank=True)
    error_class = models.CharField(max_length=200)
    error = models.TextField()
    traceback = models.TextField(blank=True)
    fingerprint = models.CharField(max_length=40, help_text="The same for the same cause.")
    payload = models.JSONField(default=dict)
    headers = models.JSONField(default=dict)
    attempts = models.PositiveIntegerField(default=1)
    worker = models.CharField(max_length=200, blank=True)
    buried_at = models.DateTimeField(db_default=Now())
    digest = models.CharField(max_length=64, help_text="Burying the same thing twice keeps one open letter.")
    resolution = models.CharField(max_length=10, choices=Resolution, default=Resolution.OPEN)
    resolved_at = models.DateTimeField(null=True, help_text="NULL while open.")
    resolved_by = models.CharField(max_length=200, blank=True)
    reason = models.TextField(blank=True, help_text="Why it was replayed or discarded.")

    objects = DeadLetterQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["digest"], condition=models.Q(resolution="open"), name="one_open_letter_per_failure"
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["resolution", "-buried_at"], name="letters_by_resolution"),
            models.Index(fields=["message_id"], name="letters_by_message"),
            models.Index(fields=["key"], name="letters_by_key"),
            models.Index(fields=["fingerprint"], name="letters_by_fingerprint"),
        ]
        permissions: ClassVar = [
            ("replay_deadletter", "Can replay dead letters"),
            ("discard_deadletter", "Can discard dead letters"),
        ]

    def __str__(self) -> str:
        return f"{self.consumer}: {self.error_class}"


class Verification(models.Model):
    """What one comparison of everything the system promises with what there is has found."""

    ran_at = models.DateTimeField(help_text="When its snapshot was taken.")
    took = models.DurationField()
    since = models.DateTimeField(null=True, help_text="Only what has changed since then counted; NULL: all.")
    providers = models.BooleanField(help_text="Whether the providers' own records were compared too.")
    passed = models.BooleanField()
    by = models.CharField(max_length=200, help_text="beat, or cli: and a user.")
    findings = models.JSONField(help_text="One for each invariant.")

    class Meta:
        indexes: ClassVar = [models.Index(fields=["-ran_at"], name="verifications_newest_first")]

    def __str__(self) -> str:
        return f"{self.ran_at:%Y-%m-%d %H:%M}: {'passed' if self.passed else 'failed'}"


class RepairRecord(models.Model):
    """One repair that `verify` made: what, to which subject, by whom and why. Written with the repair."""

    invariant = models.CharField(max_length=100)
    subject = models.CharField(max_length=200, help_text="The offending id, e.g. an order's number.")
    what = models.TextField(help_text="What was done.")
    repaired_at = models.DateTimeField(db_default=Now())
    repaired_by = models.CharField(max_length=200)
    reason = models.TextField()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["-repaired_at"], name="repairs_newest_first")]

    def __str__(self) -> str:
        return f"{self.invariant} {self.subject}: {self.what}"
