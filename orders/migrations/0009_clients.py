"""
API clients, to whom tokens belong, and what the life cycle of tokens needs.

Only small tables change, and new columns have defaults in the database, so that the code before this one goes on.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0008_refunds_by_other_means"),
    ]

    operations = [
        migrations.CreateModel(
            name="ApiClient",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, unique=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "verbose_name": "API client",
            },
        ),
        migrations.AddField(
            model_name="apitoken",
            name="client",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="tokens",
                to="orders.apiclient",
            ),
        ),
        migrations.AddField(
            model_name="apitoken",
            name="allowed_networks",
            field=models.JSONField(
                blank=True,
                db_default=models.Value([], models.JSONField()),
                default=list,
                help_text="Where requests may come from, as CIDR; empty: from anywhere.",
            ),
        ),
        migrations.AddField(
            model_name="apitoken",
            name="last_four",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="How the secret ends; empty when it is older than this column.",
                max_length=4,
            ),
        ),
        migrations.AlterField(
            model_name="apitoken",
            name="digest",
            field=models.CharField(help_text="SHA-256 of the secret.", max_length=64, unique=True),
        ),
        migrations.AlterField(
            model_name="apitoken",
            name="scopes",
            field=models.JSONField(
                default=list, help_text="orders:read, orders:read:all, orders:write, orders:cancel."
            ),
        ),
        migrations.CreateModel(
            name="SupersededSecret",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("digest", models.CharField(help_text="SHA-256 of the secret.", max_length=64, unique=True)),
                ("last_four", models.CharField(blank=True, max_length=4)),
                (
                    "superseded_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                (
                    "valid_until",
                    models.DateTimeField(help_text="When its overlap ends; in the past when there was none."),
                ),
                (
                    "last_used_at",
                    models.DateTimeField(help_text="NULL: not since it was superseded.", null=True),
                ),
                (
                    "token",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="superseded",
                        to="orders.apitoken",
                    ),
                ),
            ],
            options={
                "verbose_name": "superseded secret",
            },
        ),
    ]
