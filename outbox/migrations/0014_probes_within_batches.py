"""Probes that are sent within a batch of the relay, and name it. Safe beside the old code."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0013_deliveries"),
    ]

    operations = [
        migrations.AddField(
            model_name="queueprobe",
            name="batch",
            field=models.UUIDField(
                help_text="The relay's claim with which it was sent; NULL for the sweep's.", null=True
            ),
        ),
        migrations.AddField(
            model_name="delivery",
            name="batch",
            field=models.UUIDField(
                help_text="The relay's claim with which its first copy was sent.", null=True
            ),
        ),
    ]
