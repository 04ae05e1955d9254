"""Tasks of Django's tasks framework: their arguments and how far they are."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class EnqueuedTask(models.Model):
    """
    A call of a function, enqueued in the transaction that made it necessary.

    Its id is that of its message. That it has failed is not a status here: an open or discarded dead letter of
    its message says so, and a replay takes that back.
    """

    class Status(models.TextChoices):
        READY = "READY", "ready"
        RUNNING = "RUNNING", "running"
        SUCCESSFUL = "SUCCESSFUL", "successful"

    message_id = models.UUIDField(primary_key=True)
    task = models.CharField(max_length=200, help_text="The dotted path of the task.")
    args = models.JSONField(default=list)
    kwargs = models.JSONField(default=dict)
    backend = models.CharField(max_length=200)
    queue_name = models.CharField(max_length=200)
    priority = models.SmallIntegerField(default=0)
    run_after = models.DateTimeField(null=True, help_text="NULL: as soon as possible.")
    enqueued_at = models.DateTimeField(db_default=Now())
    status = models.CharField(max_length=10, choices=Status, default=Status.READY)
    started_at = models.DateTimeField(null=True, help_text="When it was first tried; NULL before.")
    last_attempted_at = models.DateTimeField(null=True, help_text="When it was last tried; NULL before.")
    finished_at = models.DateTimeField(null=True, help_text="When it succeeded; NULL before.")
    worker_ids = ArrayField(
        models.CharField(max_length=200), default=list, help_text="The worker of each attempt."
    )
    errors = models.JSONField(default=list, help_text="The latest failed attempts.")
    return_value = models.JSONField(null=True, help_text="NULL until it succeeds, or if it returns nothing.")

    class Meta:
        verbose_name = "task"
        indexes: ClassVar = [models.Index(fields=["task", "-message_id"], name="enqueued_tasks_by_task")]

    def __str__(self) -> str:
        return f"{self.task} {self.message_id}"
