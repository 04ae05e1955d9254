"""Dead letters and their replays. `burying`, `resolving` and `campaigns` write them; resolving deletes none."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class DeadLetterQuerySet(models.QuerySet["DeadLetter"]):
    """Selections of dead letters."""

    def open(self) -> DeadLetterQuerySet:
        """Return the dead letters that wait for a person."""
        return self.filter(resolution=DeadLetter.Resolution.OPEN)

    def unresolved(self) -> DeadLetterQuerySet:
        """Return the dead letters that are open or being replayed."""
        return self.filter(resolution__in=UNRESOLVED)


class DeadLetter(models.Model):
    """
    Unfinished work, with everything that is known about it.

    Resolving a dead letter never deletes it. After a replay it has recovered or is open again. Old rows may be
    `replayed`: their message was redelivered, but the outcome was not recorded. `message_id` is NULL if the
    message could not be read; such a dead letter can be discarded but not replayed.
    """

    class Resolution(models.TextChoices):
        OPEN = "open", "open"
        REPLAYING = "replaying", "being replayed"
        RECOVERED = "recovered", "recovered"
        REPLAYED = "replayed", "replayed, outcome not kept"
        DISCARDED = "discarded", "discarded"

    class Source(models.TextChoices):
        RELAY = "relay", "relay"
        TASK = "task", "task"
        WORKER = "worker", "worker"
        BROKER = "broker", "broker"

    source = models.CharField(max_length=10, choices=Source)
    consumer = models.CharField(max_length=200, help_text="What gave up, e.g. billing.tasks.collect.")
    message_id = models.UUIDField(null=True, help_text="NULL: what failed carried no readable message id.")
    key = models.CharField(max_length=200, blank=True, help_text="What it is about, e.g. an invoice's id.")
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
    digest = models.CharField(
        max_length=64, help_text="Burying the same thing twice keeps one unresolved dead letter."
    )
    resolution = models.CharField(max_length=10, choices=Resolution, default=Resolution.OPEN)
    resolved_at = models.DateTimeField(
        null=True, help_text="When it was replayed, recovered or discarded; NULL while open."
    )
    resolved_by = models.CharField(max_length=200, blank=True)
    reason = models.TextField(blank=True, help_text="Why it was replayed or discarded.")

    objects = DeadLetterQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["digest"],
                condition=models.Q(resolution__in=["open", "replaying"]),
                name="one_unresolved_dead_letter_per_failure",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["resolution", "-buried_at"], name="letters_by_resolution"),
            models.Index(fields=["message_id"], name="letters_by_message"),
            models.Index(fields=["key"], name="letters_by_key"),
            models.Index(fields=["fingerprint"], name="letters_by_fingerprint"),
            models.Index(fields=["-buried_at", "-id"], name="dead_letters_newest_first"),
            models.Index(fields=["consumer", "-buried_at", "-id"], name="dead_letters_by_consumer"),
            models.Index(fields=["error_class", "-buried_at", "-id"], name="dead_letters_by_error"),
            models.Index(
                fields=["resolution", "consumer", "-buried_at", "-id"], name="dead_letters_open_consumer"
            ),
            models.Index(
                fields=["resolution", "error_class", "-buried_at", "-id"], name="dead_letters_open_error"
            ),
        ]
        permissions: ClassVar = [
            ("replay_deadletter", "Can replay dead letters"),
            ("discard_deadletter", "Can discard dead letters"),
            ("reveal_deadletter", "Can reveal contact data in dead letters"),
        ]

    def __str__(self) -> str:
        return f"{self.consumer}: {self.error_class}"


UNRESOLVED = [DeadLetter.Resolution.OPEN, DeadLetter.Resolution.REPLAYING]


class ReplayCampaign(models.Model):
    """A person's decision to replay dead letters: who, when and why. `Replay` holds the outcomes."""

    started_at = models.DateTimeField(db_default=Now())
    by = models.CharField(max_length=200)
    reason = models.TextField()
    user_id = models.BigIntegerField(
        null=True, help_text="Who decided, in the admin's history; NULL for commands."
    )

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["-started_at", "id"], name="campaigns_newest_first"),
            models.Index(fields=["by"], name="campaigns_by_person"),
        ]

    def __str__(self) -> str:
        return f"replay {self.pk} by {self.by}"


class Replay(models.Model):
    """One dead letter in one campaign, with its outcome."""

    class Outcome(models.TextChoices):
        UNDER_WAY = "under_way", "under way"
        RECOVERED = "recovered", "recovered"
        FAILED = "failed", "failed again"
        ENDED = "ended", "no longer needed"

    campaign = models.ForeignKey(ReplayCampaign, on_delete=models.PROTECT, related_name="replays")
    dead_letter = models.ForeignKey(DeadLetter, on_delete=models.PROTECT, related_name="replays")
    outcome = models.CharField(max_length=10, choices=Outcome, default=Outcome.UNDER_WAY)
    ended_at = models.DateTimeField(null=True, help_text="NULL while under way.")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["dead_letter"],
                condition=models.Q(outcome="under_way"),
                name="one_replay_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dead_letter_id} in {self.campaign_id}: {self.outcome}"
