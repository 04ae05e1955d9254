"""The heartbeats of workers, relays and beat. `worker.heartbeats` writes these rows; `processes` reads them."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Heartbeat(models.Model):
    """
    When the main process of a worker, a relay or beat was last alive, by the database's clock.

    A process that is started again under the same name continues the row. Rows of processes that are no longer
    seen stay for a day, so that the loss of a process is known although nothing of it is left.
    """

    class Role(models.TextChoices):
        WORKER = "worker", "runs tasks"
        RELAY = "relay", "also publishes messages"
        BEAT = "beat", "sends the ticks of the schedule"

    name = models.CharField(primary_key=True, max_length=255, help_text="Its node name, e.g. jobs@host.")
    role = models.CharField(max_length=10, choices=Role)
    pool = models.CharField(max_length=100, help_text="The pool of workers it belongs to, e.g. jobs.")
    queues = ArrayField(
        models.CharField(max_length=200), help_text="The queues it consumes; none in the case of beat."
    )
    process = models.UUIDField(help_text="Differs from one start to the next.")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    ended_at = models.DateTimeField(
        null=True, help_text="NULL while it runs, and if it ended without being able to record that."
    )

    def __str__(self) -> str:
        return self.name
