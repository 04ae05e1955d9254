"""How replays end. New tables, and texts that only Django reads: safe beside the old code."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0003_verifications"),
    ]

    operations = [
        migrations.CreateModel(
            name="ReplayCampaign",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("by", models.CharField(max_length=200)),
                ("reason", models.TextField()),
                (
                    "user_id",
                    models.BigIntegerField(
                        help_text="Who decided, in the admin's history; NULL for commands.", null=True
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["-started_at", "id"], name="campaigns_newest_first")],
            },
        ),
        migrations.CreateModel(
            name="Replay",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "outcome",
                    models.CharField(
                        choices=[
                            ("under_way", "under way"),
                            ("recovered", "recovered"),
                            ("failed", "failed again"),
                            ("ended", "no longer needed"),
                        ],
                        default="under_way",
                        max_length=10,
                    ),
                ),
                ("ended_at", models.DateTimeField(help_text="NULL while under way.", null=True)),
                (
                    "campaign",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="replays",
                        to="outbox.replaycampaign",
                    ),
                ),
                (
                    "dead_letter",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="replays",
                        to="outbox.deadletter",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("outcome", "under_way")),
                        fields=("dead_letter",),
                        name="one_replay_at_a_time",
                    )
                ],
            },
        ),
        migrations.AlterField(
            model_name="deadletter",
            name="digest",
            field=models.CharField(
                help_text="Burying the same thing twice keeps one unresolved dead letter.", max_length=64
            ),
        ),
        migrations.AlterField(
            model_name="deadletter",
            name="resolution",
            field=models.CharField(
                choices=[
                    ("open", "open"),
                    ("replaying", "being replayed"),
                    ("recovered", "recovered"),
                    ("replayed", "replayed, outcome not kept"),
                    ("discarded", "discarded"),
                ],
                default="open",
                max_length=10,
            ),
        ),
        migrations.AlterField(
            model_name="deadletter",
            name="resolved_at",
            field=models.DateTimeField(
                help_text="When it was replayed, recovered or discarded; NULL while open.", null=True
            ),
        ),
    ]
