"""
One client for each token, and `orders:cancel` for those that could cancel so far.

A client gets the id of its token: the scope of its idempotency keys, `api:<id>`, stays what it was.
"""

from django.db import migrations

MAKE = """
INSERT INTO orders_apiclient (id, name, created_at) SELECT id, name, created_at FROM orders_apitoken;

SELECT setval(pg_get_serial_sequence('orders_apiclient', 'id'), greatest(1, coalesce(max(id), 1)), count(*) > 0)
FROM orders_apiclient;

UPDATE orders_apitoken SET client_id = id;

UPDATE orders_apitoken SET scopes = (
    SELECT jsonb_agg(scope ORDER BY scope)
    FROM (SELECT jsonb_array_elements_text(scopes) AS scope UNION SELECT 'orders:cancel') AS all_scopes
)
WHERE scopes @> '["orders:write"]';
"""

UNDO = """
UPDATE orders_apitoken SET client_id = NULL;
DELETE FROM orders_apiclient;
"""


class Migration(migrations.Migration):
    dependencies = [("orders", "0009_clients")]

    operations = [migrations.RunSQL(MAKE, UNDO)]
