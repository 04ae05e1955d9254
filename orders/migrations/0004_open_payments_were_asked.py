"""
Payments that were open before the columns existed may have been asked for: say so, or nobody looks them up.

Open payments are few, and running it again changes nothing.
"""

from django.db import migrations

NOTE = """
UPDATE orders_payment SET first_asked_at = requested_at, last_asked_at = statement_timestamp()
WHERE status IN ('requested', 'unknown') AND first_asked_at IS NULL
"""


class Migration(migrations.Migration):
    dependencies = [("orders", "0003_payment_asked_at")]

    operations = [migrations.RunSQL(NOTE, migrations.RunSQL.noop)]
