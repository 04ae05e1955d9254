"""What verifications found, and what was repaired because of them. New tables only: safe beside the old code."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0002_wake_relay"),
    ]

    operations = [
        migrations.CreateModel(
            name="RepairRecord",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("invariant", models.CharField(max_length=100)),
                (
                    "subject",
                    models.CharField(help_text="The offending id, e.g. an order's number.", max_length=200),
                ),
                ("what", models.TextField(help_text="What was done.")),
                ("repaired_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("repaired_by", models.CharField(max_length=200)),
                ("reason", models.TextField()),
            ],
            options={
                "indexes": [models.Index(fields=["-repaired_at"], name="repairs_newest_first")],
            },
        ),
        migrations.CreateModel(
            name="Verification",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("ran_at", models.DateTimeField(help_text="When its snapshot was taken.")),
                ("took", models.DurationField()),
                (
                    "since",
                    models.DateTimeField(
                        help_text="Only what has changed since then counted; NULL: all.", null=True
                    ),
                ),
                (
                    "providers",
                    models.BooleanField(help_text="Whether the providers' own records were compared too."),
                ),
                ("passed", models.BooleanField()),
                ("by", models.CharField(help_text="beat, or cli: and a user.", max_length=200)),
                ("findings", models.JSONField(help_text="One for each invariant.")),
            ],
            options={
                "indexes": [models.Index(fields=["-ran_at"], name="verifications_newest_first")],
            },
        ),
    ]
