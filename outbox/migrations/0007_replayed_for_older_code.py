"""Only on the way back: older code knows `replayed`, and neither what is being replayed nor what recovered."""

from django.db import migrations

BACK = "UPDATE outbox_deadletter SET resolution = 'replayed' WHERE resolution IN ('replaying', 'recovered')"


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0006_no_index_of_open_dead_letters"),
    ]

    operations = [
        migrations.RunSQL(migrations.RunSQL.noop, BACK),
    ]
