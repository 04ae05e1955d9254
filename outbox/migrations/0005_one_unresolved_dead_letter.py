"""
One unresolved dead letter per failure, whether it is open or being replayed.

Made beside the index that it follows, which goes in the next migration: old code needs either of them.
"""

from django.db import migrations, models

CREATE = """
    CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one_unresolved_dead_letter_per_failure
    ON outbox_deadletter (digest) WHERE resolution IN ('open', 'replaying')
"""
DROP = "DROP INDEX CONCURRENTLY IF EXISTS one_unresolved_dead_letter_per_failure"


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("outbox", "0004_replay_outcomes"),
    ]

    operations = [
        # What an interrupted run has left behind is invalid and keeps nobody from anything.
        migrations.RunSQL(DROP, migrations.RunSQL.noop),
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(CREATE, DROP)],
            state_operations=[
                migrations.AddConstraint(
                    model_name="deadletter",
                    constraint=models.UniqueConstraint(
                        condition=models.Q(("resolution__in", ["open", "replaying"])),
                        fields=("digest",),
                        name="one_unresolved_dead_letter_per_failure",
                    ),
                ),
            ],
        ),
    ]
