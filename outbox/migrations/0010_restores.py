"""Which database the data was written in, and when it went back in time. New tables only: safe beside the old code."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("outbox", "0009_messages_are_found_by_more")]

    operations = [
        migrations.CreateModel(
            name="DatabaseIdentity",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "names",
                    models.JSONField(default=dict, help_text="Server, timeline, database and table."),
                ),
                (
                    "started_at",
                    models.CharField(help_text="When that server started, in its own words.", max_length=60),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Restore",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "noted_at",
                    models.DateTimeField(help_text="When it was noticed or declared; it happened before."),
                ),
                (
                    "data_until",
                    models.DateTimeField(
                        help_text="When the restored data ends; NULL: not known, because there was none.",
                        null=True,
                    ),
                ),
                (
                    "is_failover",
                    models.BooleanField(
                        default=False,
                        help_text="A standby took over and lost minutes at most, as far as can be seen.",
                    ),
                ),
                (
                    "evidence",
                    models.TextField(help_text="What showed it, or that somebody declared it."),
                ),
                ("noted_by", models.CharField(help_text="system, or cli: and a user.", max_length=200)),
            ],
        ),
    ]
