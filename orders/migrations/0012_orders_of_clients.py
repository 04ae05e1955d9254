"""
The clients of the orders there are, as their idempotency records name them.

A thousand at a time, each batch a transaction of its own. Running it again goes on where it was interrupted:
orders that have a client are left alone. `manage.py api_client assign_orders` does the same for orders that
the code before this one places afterwards.
"""

from django.db import migrations

BATCH = 1000
ASSIGN = """
WITH batch AS MATERIALIZED (
    SELECT id, order_id, scope FROM orders_idempotencyrecord WHERE id > %s ORDER BY id LIMIT %s
), assigned AS (
    UPDATE orders_order SET client_id = client.id
    FROM batch JOIN orders_apiclient AS client ON batch.scope = 'api:' || client.id
    WHERE orders_order.id = batch.order_id AND orders_order.client_id IS NULL
)
SELECT max(id) FROM batch
"""


def assign(apps, schema_editor):
    last = 0
    with schema_editor.connection.cursor() as cursor:
        while last is not None:
            cursor.execute(ASSIGN, [last, BATCH])
            (last,) = cursor.fetchone()


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("orders", "0011_orders_have_clients")]

    operations = [migrations.RunPython(assign, migrations.RunPython.noop)]
