"""The client of orders that were placed before orders had clients, according to their idempotency records."""

from __future__ import annotations

from django.db import connection

from orders.models import ApiClient, IdempotencyRecord, Order

BATCH = 1000

ASSIGN = f"""
WITH batch AS MATERIALIZED (
    SELECT id, order_id, scope FROM {IdempotencyRecord._meta.db_table}
    WHERE id > %(last)s ORDER BY id LIMIT %(batch)s
), assigned AS (
    UPDATE {Order._meta.db_table} AS assigned SET client_id = client.id
    FROM batch JOIN {ApiClient._meta.db_table} AS client ON batch.scope = 'api:' || client.id
    WHERE assigned.id = batch.order_id AND assigned.client_id IS NULL
    RETURNING assigned.id
)
SELECT (SELECT max(id) FROM batch), (SELECT count(*) FROM assigned)
"""  # noqa: S608 - our own tables


def assign_orders() -> int:
    """
    Assign orders without a client to the one whose idempotency key placed them; return how many were assigned.

    In batches, one transaction each. Orders that were placed without a client's key stay unassigned.
    """
    last, assigned = 0, 0
    while last is not None:
        with connection.cursor() as cursor:
            cursor.execute(ASSIGN, {"last": last, "batch": BATCH})
            last, some = cursor.fetchone()
        assigned += some
    return assigned
