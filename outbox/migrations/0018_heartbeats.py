"""When each worker, relay and beat was last alive. A new table only: safe beside the old code."""

import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0017_neutral_help_texts"),
    ]

    operations = [
        migrations.CreateModel(
            name="Heartbeat",
            fields=[
                (
                    "name",
                    models.CharField(
                        help_text="Its node name, e.g. jobs@host.",
                        max_length=255,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("worker", "runs tasks"),
                            ("relay", "also publishes messages"),
                            ("beat", "sends the ticks of the schedule"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "pool",
                    models.CharField(help_text="The pool of workers it belongs to, e.g. jobs.", max_length=100),
                ),
                (
                    "queues",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=200),
                        help_text="The queues it consumes; none in the case of beat.",
                        size=None,
                    ),
                ),
                ("process", models.UUIDField(help_text="Differs from one start to the next.")),
                ("started_at", models.DateTimeField()),
                ("seen_at", models.DateTimeField()),
                (
                    "ended_at",
                    models.DateTimeField(
                        help_text="NULL while it runs, and if it ended without being able to record that.",
                        null=True,
                    ),
                ),
            ],
        ),
    ]
