"""The index that `one_unresolved_dead_letter_per_failure` follows is not needed any more."""

from django.db import migrations

CREATE = """
    CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one_open_letter_per_failure
    ON outbox_deadletter (digest) WHERE resolution = 'open'
"""
DROP = "DROP INDEX CONCURRENTLY IF EXISTS one_open_letter_per_failure"


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("outbox", "0005_one_unresolved_dead_letter"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(DROP, CREATE)],
            state_operations=[
                migrations.RemoveConstraint(model_name="deadletter", name="one_open_letter_per_failure"),
            ],
        ),
    ]
