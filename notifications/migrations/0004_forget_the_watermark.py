"""Stop using the watermark. Its table stays for old workers; the next release drops it."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("notifications", "0003_indexes_for_lists")]

    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[migrations.DeleteModel(name="Watermark")]),
    ]
