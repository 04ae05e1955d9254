"""Deliveries as rows, and the probes that tell waiting from lost. New tables only: safe beside the old code."""

import django.contrib.postgres.fields
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0012_attempts_name_their_delivery"),
    ]

    operations = [
        migrations.CreateModel(
            name="QueueProbe",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("queue", models.CharField(max_length=200)),
                ("sent_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "returned_at",
                    models.DateTimeField(help_text="NULL while it waits in the queue, or is lost.", null=True),
                ),
                (
                    "waiting",
                    models.PositiveIntegerField(
                        help_text="The queue's length when it was sent; NULL when nobody had to ask.", null=True
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="QueueWatch",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("since", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("looked_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "verbose_name_plural": "queue watches",
            },
        ),
        migrations.AlterField(
            model_name="outboxmessage",
            name="workflows",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=200),
                default=list,
                help_text="What to start; empty means all subscribed. Written by older code only: see deliveries.",
                size=None,
            ),
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "message_id", "workflow", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("message_id", models.UUIDField()),
                ("workflow", models.CharField(max_length=200)),
                (
                    "generation",
                    models.PositiveIntegerField(
                        help_text="The redeliveries of its message when it was asked for."
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[("waiting", "waits for its time"), ("sent", "is with the broker or a worker")],
                        max_length=10,
                    ),
                ),
                (
                    "queue",
                    models.CharField(
                        blank=True, db_default="", help_text="Where its copy waits.", max_length=200
                    ),
                ),
                (
                    "not_before",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="The relay leaves it alone until then. A claim and a postponement move it.",
                    ),
                ),
                (
                    "claim",
                    models.UUIDField(
                        help_text="The relay that is about to send it; NULL when none is.", null=True
                    ),
                ),
                (
                    "sent_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="When its copy was sent or last got on; in the future for a retry.",
                    ),
                ),
                (
                    "losses",
                    models.PositiveSmallIntegerField(
                        db_default=0, help_text="Copies in a row that were found lost."
                    ),
                ),
                (
                    "attempts",
                    models.PositiveIntegerField(
                        db_default=0, help_text="Failed tries of the relay, outages not counted."
                    ),
                ),
                ("last_error", models.TextField(blank=True, db_default="")),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "indexes": [
                    models.Index(
                        condition=models.Q(("status", "waiting")),
                        fields=["not_before", "message_id"],
                        name="deliveries_waiting",
                    ),
                    models.Index(
                        condition=models.Q(("status", "sent")),
                        fields=["queue", "sent_at"],
                        name="deliveries_sent",
                    ),
                ],
            },
        ),
    ]
