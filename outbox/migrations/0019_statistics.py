"""What was counted of each series, per minute and in total. New tables only: safe beside the old code."""

import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0018_heartbeats"),
    ]

    operations = [
        migrations.CreateModel(
            name="StatisticsCursor",
            fields=[
                ("series", models.CharField(max_length=100, primary_key=True, serialize=False)),
                (
                    "counted_until",
                    models.BigIntegerField(
                        default=0,
                        help_text="The position of the last row that is in the totals; see the series.",
                    ),
                ),
                (
                    "samples",
                    models.JSONField(
                        default=list,
                        help_text="Positions up to which may be counted once older transactions have ended.",
                    ),
                ),
                (
                    "recounted_at",
                    models.DateTimeField(help_text="NULL until its buckets were first compared.", null=True),
                ),
            ],
        ),
        migrations.CreateModel(
            name="StatisticsBucket",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("series", models.CharField(help_text="Its name, e.g. messages.published.", max_length=100)),
                (
                    "labels",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=200),
                        help_text="In the order of the series' labels.",
                        size=None,
                    ),
                ),
                ("count", models.BigIntegerField(default=0)),
                (
                    "seconds",
                    models.FloatField(default=0, help_text="The sum of all durations, or of all samples."),
                ),
                (
                    "histogram",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.BigIntegerField(),
                        default=list,
                        help_text="Durations per bound of the series, not cumulative, the last without bound; else empty.",
                        size=None,
                    ),
                ),
                ("minute", models.DateTimeField(help_text="When it begins.")),
                (
                    "maximum",
                    models.FloatField(default=0, help_text="The longest duration, or the largest sample."),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["minute"], name="buckets_by_age")],
                "constraints": [
                    models.UniqueConstraint(fields=("series", "minute", "labels"), name="one_bucket_per_minute")
                ],
            },
        ),
        migrations.CreateModel(
            name="StatisticsTotal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("series", models.CharField(help_text="Its name, e.g. messages.published.", max_length=100)),
                (
                    "labels",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=200),
                        help_text="In the order of the series' labels.",
                        size=None,
                    ),
                ),
                ("count", models.BigIntegerField(default=0)),
                (
                    "seconds",
                    models.FloatField(default=0, help_text="The sum of all durations, or of all samples."),
                ),
                (
                    "histogram",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.BigIntegerField(),
                        default=list,
                        help_text="Durations per bound of the series, not cumulative, the last without bound; else empty.",
                        size=None,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("series", "labels"), name="one_total_per_labels")
                ],
            },
        ),
        migrations.CreateModel(
            name="UnsettledRow",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("series", models.CharField(max_length=100)),
                ("row", models.BigIntegerField()),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("series", "row"), name="unsettled_once")],
            },
        ),
    ]
