"""The index of the orders whose charge waits for a person at the provider."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class MakeIndex(AddIndexConcurrently):
    """Make an index while everybody goes on; again from the start when that was interrupted before."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        # Millions of payments take longer than a statement of ours may.
        schema_editor.execute("SET statement_timeout = 0")
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema_editor.quote_name(self.index.name)}")
        super().database_forwards(app_label, schema_editor, from_state, to_state)
        schema_editor.execute("RESET statement_timeout")


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("orders", "0015_charges_that_are_held")]

    operations = [
        MakeIndex(
            "payment",
            models.Index(
                fields=["order"],
                condition=models.Q(held_since__isnull=False, resolved_at__isnull=True),
                name="payments_that_are_held",
            ),
        ),
    ]
