"""The index of a client's list of orders."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class MakeIndex(AddIndexConcurrently):
    """Make an index while everybody goes on; again from the start when that was interrupted before."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        # Millions of orders take longer than a statement of ours may.
        schema_editor.execute("SET statement_timeout = 0")
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema_editor.quote_name(self.index.name)}")
        super().database_forwards(app_label, schema_editor, from_state, to_state)
        schema_editor.execute("RESET statement_timeout")


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("orders", "0012_orders_of_clients")]

    operations = [
        MakeIndex(
            "order",
            models.Index(
                fields=["client", "-placed_at", "id"],
                condition=models.Q(client__isnull=False),
                name="orders_by_client",
            ),
        ),
    ]
