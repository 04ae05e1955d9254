from django.contrib.postgres.indexes import HashIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class MakeIndex(AddIndexConcurrently):
    """Make an index while everybody goes on; again from the start when that was interrupted before."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema_editor.quote_name(self.index.name)}")
        super().database_forwards(app_label, schema_editor, from_state, to_state)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("notifications", "0002_watermark")]

    operations = [
        MakeIndex(model, index)
        for model, index in [
            (
                "notification",
                models.Index(fields=["channel", "-created_at", "id"], name="notifications_by_channel"),
            ),
            (
                "notification",
                models.Index(
                    fields=["status", "-created_at", "id"],
                    condition=models.Q(status__in=["failed", "suppressed"]),
                    name="notifications_not_sent",
                ),
            ),
            ("notification", HashIndex(fields=["recipient"], name="notifications_by_recipient")),
            (
                "notification",
                HashIndex(
                    fields=["provider_message_id"],
                    condition=~models.Q(provider_message_id=""),
                    name="notifications_by_provider_id",
                ),
            ),
        ]
    ]
