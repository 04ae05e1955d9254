"""The results of verifications, their repairs, and restores of the database."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.db.models.functions import Now


class Verification(models.Model):
    """The result of one run over the invariants."""

    ran_at = models.DateTimeField(help_text="When its snapshot was taken.")
    took = models.DurationField()
    since = models.DateTimeField(null=True, help_text="Only what has changed since then counted; NULL: all.")
    providers = models.BooleanField(help_text="Whether the providers' own records were compared too.")
    passed = models.BooleanField()
    by = models.CharField(max_length=200, help_text="beat, or cli: and a user.")
    findings = models.JSONField(help_text="One for each invariant.")

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["-ran_at"], name="verifications_newest_first"),
            models.Index(fields=["passed", "-ran_at", "-id"], name="verifications_by_verdict"),
        ]

    def __str__(self) -> str:
        return f"{self.ran_at:%Y-%m-%d %H:%M}: {'passed' if self.passed else 'failed'}"


class DatabaseIdentity(models.Model):
    """One row: the server and the database in which the data was written. It reveals a copy elsewhere."""

    names: Any = models.JSONField(default=dict, help_text="Server, timeline, database and table.")
    started_at = models.CharField(max_length=60, help_text="When that server started, in its own words.")

    def __str__(self) -> str:
        return f"{self.names}"


class Restore(models.Model):
    """A restore of the database: it does not know what happened between `data_until` and `noted_at`."""

    noted_at = models.DateTimeField(help_text="When it was noticed or declared; it happened before.")
    data_until = models.DateTimeField(
        null=True, help_text="When the restored data ends; NULL: not known, because there was none."
    )
    is_failover = models.BooleanField(
        default=False, help_text="A standby took over and lost minutes at most, as far as can be seen."
    )
    evidence = models.TextField(help_text="What showed it, or that somebody declared it.")
    noted_by = models.CharField(max_length=200, help_text="system, or cli: and a user.")

    def __str__(self) -> str:
        return f"restored to {self.data_until or 'nothing'}, noted at {self.noted_at}"


class RepairRecord(models.Model):
    """One repair by `verify`: what, to which subject, by whom and why. Written in the repair's transaction."""

    invariant = models.CharField(max_length=100)
    subject = models.CharField(max_length=200, help_text="The offending id.")
    what = models.TextField(help_text="What was done.")
    repaired_at = models.DateTimeField(db_default=Now())
    repaired_by = models.CharField(max_length=200)
    reason = models.TextField()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["-repaired_at"], name="repairs_newest_first"),
            models.Index(fields=["subject"], name="repairs_by_subject"),
        ]

    def __str__(self) -> str:
        return f"{self.invariant} {self.subject}: {self.what}"
