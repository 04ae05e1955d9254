"""When each periodic task was last done. A new table only: safe beside the old code."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0010_restores"),
    ]

    operations = [
        migrations.CreateModel(
            name="PeriodicRun",
            fields=[
                (
                    "name",
                    models.CharField(
                        help_text="The task, e.g. outbox.tasks.drain.",
                        max_length=200,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("first_began_at", models.DateTimeField()),
                ("last_began_at", models.DateTimeField()),
                (
                    "last_ended_at",
                    models.DateTimeField(help_text="NULL until it was done for the first time.", null=True),
                ),
                (
                    "last_error",
                    models.TextField(
                        blank=True, help_text="Why it failed the last time; empty when it did not."
                    ),
                ),
            ],
        ),
    ]
