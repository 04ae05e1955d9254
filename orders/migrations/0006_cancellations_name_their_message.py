"""
Orders whose cancellation was asked for during a step, which then named their older message again.

Only the cancellation's own message ends them, once a broker has lost it. They are few, and running it
again changes nothing.
"""

from django.db import migrations

NAME = """
UPDATE orders_order AS o SET message_id = asked.id
FROM outbox_outboxmessage AS asked
WHERE o.finished_at IS NULL AND o.cancel_requested_at IS NOT NULL AND o.status <> 'cancelling'
  AND asked.key = o.id::text AND asked.event_name = 'orders.cancellation_requested'
  AND o.message_id <> asked.id
"""


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0005_api_token_spelling"),
        ("outbox", "0001_outbox_inbox_dead_letters"),
    ]

    operations = [migrations.RunSQL(NAME, migrations.RunSQL.noop)]
