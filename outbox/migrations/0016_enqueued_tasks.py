"""A table for the tasks of Django's tasks framework. A new table only: safe beside the old code."""

import django.contrib.postgres.fields
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0015_reveal_dead_letters"),
    ]

    operations = [
        migrations.CreateModel(
            name="EnqueuedTask",
            fields=[
                ("message_id", models.UUIDField(primary_key=True, serialize=False)),
                ("task", models.CharField(help_text="The dotted path of the task.", max_length=200)),
                ("args", models.JSONField(default=list)),
                ("kwargs", models.JSONField(default=dict)),
                ("backend", models.CharField(max_length=200)),
                ("queue_name", models.CharField(max_length=200)),
                ("priority", models.SmallIntegerField(default=0)),
                ("run_after", models.DateTimeField(help_text="NULL: as soon as possible.", null=True)),
                ("enqueued_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "status",
                    models.CharField(
                        choices=[("READY", "ready"), ("RUNNING", "running"), ("SUCCESSFUL", "successful")],
                        default="READY",
                        max_length=10,
                    ),
                ),
                (
                    "started_at",
                    models.DateTimeField(help_text="When it was first tried; NULL before.", null=True),
                ),
                (
                    "last_attempted_at",
                    models.DateTimeField(help_text="When it was last tried; NULL before.", null=True),
                ),
                ("finished_at", models.DateTimeField(help_text="When it succeeded; NULL before.", null=True)),
                (
                    "worker_ids",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=200),
                        default=list,
                        help_text="The worker of each attempt.",
                        size=None,
                    ),
                ),
                ("errors", models.JSONField(default=list, help_text="The latest failed attempts.")),
                (
                    "return_value",
                    models.JSONField(help_text="NULL until it succeeds, or if it returns nothing.", null=True),
                ),
            ],
            options={
                "verbose_name": "task",
                "indexes": [models.Index(fields=["task", "-message_id"], name="enqueued_tasks_by_task")],
            },
        ),
    ]
