"""
Taking an order for one step: reading it, or claiming it and recording what the step is about to request.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db import connection, transaction

from orders import moves, stock
from orders.models import Order, OrderLine, OrderTransition, Payment, Product, Shipment
from orders.transitions import LEASE
from outbox.database.statements import columns, insert_from
from outbox.models import Restore
from outbox.worker import losses

KEY_WINDOW = dt.timedelta(hours=23)
"""How long the payment provider certainly remembers a key (Stripe deletes keys after 24 hours). After that, a
charge whose outcome is open may only be looked up."""

RECOVERED = "restore"
"""The source of orders that were entered again from the providers' records."""

NAMES = [field.attname for field in Order._meta.concrete_fields]


def claim(
    order_id: str, *, only_from: frozenset[moves.Status], lease: dt.timedelta = LEASE, cancelling: bool = False
) -> Order | None:
    """
    Take an order for one step, or return None if it has another status or is held by another worker.

    The version of the returned order is the fencing token: a worker that finishes with an older version changes
    nothing. A step towards shipping does not begin after cancellation was requested.
    """
    claimed = _claim(CLAIM, order_id, only_from=only_from, lease=lease, cancelling=cancelling)
    return claimed[0] if claimed else None


def claim_to_charge(order_id: str, *, key: str) -> tuple[Order, Payment, bool] | None:
    """
    Claim the order, and record the intent to charge it under the idempotency key.

    Also return whether the intent is new: an older one may have been requested before. Return None as `claim`
    does.
    """
    claimed = _claim(CLAIM_TO_CHARGE, order_id, only_from=moves.CHARGEABLE, key=key)
    if claimed is None:
        return None
    order, payment_id, asked_at = claimed
    if payment_id is None:
        return order, Payment.objects.get(idempotency_key=key), False
    payment = Payment(
        pk=payment_id,
        order=order,
        idempotency_key=key,
        amount_minor=order.total_minor,
        currency=order.currency,
        first_asked_at=asked_at,
        last_asked_at=asked_at,
    )
    return order, payment, True


def claim_to_ship(order_id: str, *, key: str) -> tuple[Order, Shipment, bool, dict[str, int]] | None:
    """
    Claim the order, and record the intent to ship it under the idempotency key.

    Also return whether the intent is new, and the quantity to ship of each SKU. Return None as `claim` does.
    """
    claimed = _claim(CLAIM_TO_SHIP, order_id, only_from=frozenset({moves.Status.CHARGED}), key=key)
    if claimed is None:
        return None
    order, shipment_id, quantities = claimed
    if shipment_id is None:
        return order, Shipment.objects.get(order=order), False, quantities or {}
    return order, Shipment(pk=shipment_id, order=order, idempotency_key=key), True, quantities or {}


class Lines(NamedTuple):
    """What validation has to know about an order's lines."""

    number: int
    total_minor: int
    have_other_currencies: bool
    short_skus: Sequence[str]
    """The products that are not on hand in the ordered quantity."""


def read_to_validate(order_id: str) -> tuple[Order, Lines]:
    """
    Read an order and the sum of its lines, and lock its products if it still has to be validated.

    What is known of the products is as new as their locks.

    The order is not claimed, because no provider is called.

    Raises:
        Order.DoesNotExist: if there is no such order.
    """
    with connection.cursor() as cursor:
        values: dict[str, Any] = {"id": order_id, "key_window": KEY_WINDOW}
        cursor.execute(READ, values)
        row = cursor.fetchone()
    if row is None:
        raise Order.DoesNotExist(f"there is no order {order_id}")
    return _order(row), Lines(*row[-4:])


def _claim(
    statement: str,
    order_id: str,
    *,
    only_from: frozenset[moves.Status],
    lease: dt.timedelta = LEASE,
    cancelling: bool = False,
    **values: Any,
) -> tuple[Any, ...] | None:
    """
    Return the claimed order, and what else the statement returns.

    A lease that its holder did not return is taken over in the same transaction that records the loss of its
    worker, so that the next loss is counted from the moment of the claim.

    Raises:
        outbox.worker.losses.CrashLoop: if too many workers were lost.
        outbox.worker.losses.NotAlone: if the order must wait until other recovered orders are done.
    """
    values |= {
        "id": order_id,
        "only_from": [str(status) for status in only_from],
        "lease": lease,
        "cancelling": cancelling,
        "key_window": KEY_WINDOW,
    }
    row = _first(statement, values | {"abandoned": False})
    if row is None:
        with transaction.atomic():
            row = _first(statement, values | {"abandoned": True})
            if row is None:
                return None
            losses.found_abandoned()
    return _order(row), *row[len(NAMES) + 1 :]


def _first(statement: str, values: dict[str, Any]) -> tuple[Any, ...] | None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        row: tuple[Any, ...] | None = cursor.fetchone()
    return row


def _order(row: tuple[Any, ...]) -> Order:
    order = Order.from_db(connection.alias, NAMES, row[: len(NAMES)])
    order.is_from_before = row[len(NAMES)]
    return order


FROM_BEFORE = f"""
({{order}}.source = '{RECOVERED}' OR coalesce(
    (SELECT min(at) FROM {OrderTransition._meta.db_table} WHERE order_id = {{order}}.id) < greatest(
        statement_timestamp() - %(key_window)s, (SELECT max(noted_at) FROM {Restore._meta.db_table})
    ), TRUE))
"""  # noqa: S608 - our own tables
"""Whether providers may know more about an order than the database does: it is older than a restore, or than
the lifetime of a key."""

READ = f"""
WITH locked AS MATERIALIZED (
    {stock.LOCK.format(columns="id, sku, currency, on_hand", where="status = 'placed'")}
)
SELECT {columns(Order, of="o")}, {FROM_BEFORE.format(order="o")},
    coalesce(sum(wanted.number), 0)::bigint, coalesce(sum(wanted.total_minor), 0)::bigint,
    coalesce(bool_or(locked.currency <> o.currency), FALSE),
    coalesce(array_agg(locked.sku ORDER BY locked.sku) FILTER (WHERE locked.on_hand < wanted.quantity), '{{}}')
FROM {Order._meta.db_table} AS o
LEFT JOIN (
    SELECT order_id, product_id, count(*) AS number, sum(quantity) AS quantity,
        sum(quantity * unit_price_minor) AS total_minor
    FROM {OrderLine._meta.db_table} WHERE order_id = %(id)s GROUP BY order_id, product_id
) AS wanted ON wanted.order_id = o.id
LEFT JOIN locked ON locked.id = wanted.product_id
WHERE o.id = %(id)s GROUP BY o.id
"""  # noqa: S608 - our own tables

CLAIM = f"""
UPDATE {Order._meta.db_table} AS o
SET version = version + 1,
    lease_until = statement_timestamp() + %(lease)s,
    due_at = statement_timestamp() + %(lease)s
FROM (
    SELECT id FROM {Order._meta.db_table}
    WHERE id = %(id)s AND status = ANY(%(only_from)s)
      AND CASE WHEN %(abandoned)s THEN lease_until < statement_timestamp() ELSE lease_until IS NULL END
      AND (cancel_requested_at IS NULL OR %(cancelling)s)
    FOR NO KEY UPDATE
) AS before
WHERE o.id = before.id
RETURNING {columns(Order, of="o")}, {FROM_BEFORE.format(order="o")} AS is_from_before
"""  # noqa: S608 - our own tables

INTEND_PAYMENT = insert_from(
    Payment,
    "claimed",
    order_id="id",
    idempotency_key="%(key)s",
    amount_minor="total_minor",
    currency="currency",
    first_asked_at="statement_timestamp()",
    last_asked_at="statement_timestamp()",
)

CLAIM_TO_CHARGE = f"""
WITH claimed AS ({CLAIM}), intended AS (
    {INTEND_PAYMENT} ON CONFLICT (idempotency_key) DO NOTHING RETURNING id, first_asked_at
)
SELECT {columns(Order, of="claimed")}, is_from_before, intended.id, intended.first_asked_at
FROM claimed LEFT JOIN intended ON TRUE
"""  # noqa: S608 - our own tables

INTEND_SHIPMENT = insert_from(Shipment, "claimed", order_id="id", idempotency_key="%(key)s")

CLAIM_TO_SHIP = f"""
WITH claimed AS ({CLAIM}), intended AS (
    {INTEND_SHIPMENT} ON CONFLICT (order_id) DO NOTHING RETURNING id
), wanted AS (
    SELECT product.sku, sum(line.quantity) AS quantity
    FROM claimed
    JOIN {OrderLine._meta.db_table} AS line ON line.order_id = claimed.id
    JOIN {Product._meta.db_table} AS product ON product.id = line.product_id
    GROUP BY product.sku
)
SELECT {columns(Order, of="claimed")}, is_from_before, intended.id,
    (SELECT json_object_agg(sku, quantity) FROM wanted)
FROM claimed LEFT JOIN intended ON TRUE
"""  # noqa: S608 - our own tables
