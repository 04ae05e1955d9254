from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class MakeIndex(AddIndexConcurrently):
    """Make an index while everybody goes on; again from the start when that was interrupted before."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema_editor.quote_name(self.index.name)}")
        super().database_forwards(app_label, schema_editor, from_state, to_state)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("outbox", "0007_replayed_for_older_code")]

    operations = [
        MakeIndex(model, index)
        for model, index in [
            ("attempt", models.Index(fields=["-failed_at", "-id"], name="attempts_newest_first")),
            ("attempt", models.Index(fields=["consumer", "-failed_at", "-id"], name="attempts_by_consumer")),
            ("attempt", models.Index(fields=["error_class", "-failed_at", "-id"], name="attempts_by_error")),
            ("deadletter", models.Index(fields=["-buried_at", "-id"], name="dead_letters_newest_first")),
            (
                "deadletter",
                models.Index(fields=["consumer", "-buried_at", "-id"], name="dead_letters_by_consumer"),
            ),
            (
                "deadletter",
                models.Index(fields=["error_class", "-buried_at", "-id"], name="dead_letters_by_error"),
            ),
            (
                "deadletter",
                models.Index(
                    fields=["resolution", "consumer", "-buried_at", "-id"], name="dead_letters_open_consumer"
                ),
            ),
            (
                "deadletter",
                models.Index(
                    fields=["resolution", "error_class", "-buried_at", "-id"], name="dead_letters_open_error"
                ),
            ),
            ("inboxentry", models.Index(fields=["message_id"], name="inbox_by_message")),
            (
                "verification",
                models.Index(fields=["passed", "-ran_at", "-id"], name="verifications_by_verdict"),
            ),
            ("replaycampaign", models.Index(fields=["by"], name="campaigns_by_person")),
            ("repairrecord", models.Index(fields=["subject"], name="repairs_by_subject")),
        ]
    ]
