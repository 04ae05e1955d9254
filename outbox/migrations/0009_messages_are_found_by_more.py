from django.contrib.postgres.indexes import HashIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class MakeIndex(AddIndexConcurrently):
    """
    Make an index while everybody goes on; again from the start when that was interrupted before.

    Where the table was divided (`partition_outbox`) each partition gets its own, and the table joins them.
    """

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        model = to_state.apps.get_model(app_label, self.model_name)
        partitions = _partitions(schema_editor, model._meta.db_table)
        if not partitions:
            schema_editor.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{self.index.name}"')
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        schema_editor.execute(f'DROP INDEX IF EXISTS "{self.index.name}"')
        statement = str(self.index.create_sql(model, schema_editor))
        begin = f'CREATE INDEX "{self.index.name}" ON "{model._meta.db_table}"'
        schema_editor.execute(statement.replace(begin, begin.replace(" ON ", " ON ONLY ")))
        for partition in partitions:
            own = f"{self.index.name}{partition.removeprefix(model._meta.db_table)}"
            schema_editor.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{own}"')
            schema_editor.execute(
                statement.replace(begin, f'CREATE INDEX CONCURRENTLY "{own}" ON "{partition}"')
            )
            schema_editor.execute(f'ALTER INDEX "{self.index.name}" ATTACH PARTITION "{own}"')

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        schema_editor.execute(f'DROP INDEX IF EXISTS "{self.index.name}"')


def _partitions(schema_editor, table):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_partition_tree(%s) JOIN pg_class ON oid = relid WHERE isleaf AND level > 0",
            [table],
        )
        return [name for (name,) in cursor.fetchall()]


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("outbox", "0008_indexes_for_lists")]

    operations = [
        MakeIndex(
            "outboxmessage",
            models.Index(fields=["id"], condition=models.Q(status="buried"), name="outbox_buried"),
        ),
        MakeIndex("outboxmessage", models.Index(fields=["event_name", "id"], name="outbox_by_event")),
        MakeIndex("outboxmessage", HashIndex(fields=["correlation_id"], name="outbox_by_correlation")),
    ]
