"""
The stock of products: an order's products are reserved, shipped or released, either all lines at once or none.

All functions run in the caller's transaction. Products are locked in the order of their keys, so that orders
that share products cannot deadlock. The lock is taken by an earlier statement than the update: a single
statement that waits for the lock and then updates still sees the old version of the row. It then locks the
newest version a second time, behind other transactions that wait for this one, and deadlocks if the foreign key
of a new order also holds the row.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.db import connection

from orders.models import Order, OrderLine, Product
from orders.transitions import Also


class OutOfStock(Exception):
    """Some products of the order are not available in the requested quantity. `skus` names them."""

    def __init__(self, skus: list[str]) -> None:
        super().__init__(", ".join(skus))
        self.skus = skus


def lock(order: Order) -> None:
    """Lock the products of the order until the end of the transaction."""
    with connection.cursor() as cursor:
        cursor.execute(LOCK.format(columns="id", where="TRUE"), {"id": order.pk})


def reserve(order: Order) -> None:
    """
    Reserve the order's products.

    Raises:
        OutOfStock: if a product is short. Nothing is reserved then.
    """
    lock(order)
    _shift(order, "on_hand", "reserved")


def release(order: Order) -> None:
    """Make the order's reserved products available again."""
    lock(order)
    _shift(order, "reserved", "on_hand")


def reserved(order: Order) -> Also:
    """
    Return the change that reserves the order's products, to be made with the order's move.

    The transaction must have locked the products. If less is on hand, a constraint of the database fails.
    """
    return Also(RESERVED, {"id": order.pk})


def shipped(order: Order) -> Also:
    """
    Return the change that counts the order's reserved products as shipped, to be made with the order's move.

    The transaction must have locked the products. If less is reserved, a constraint of the database fails.
    """
    return Also(SHIPPED, {"id": order.pk})


def receive(quantities: Mapping[str, int]) -> None:
    """Add the given quantities, by SKU, to the stock."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT FROM {Product._meta.db_table} WHERE sku = ANY(%s::text[]) ORDER BY id FOR NO KEY UPDATE
            """,
            [list(quantities)],
        )
        cursor.execute(
            f"""
            UPDATE {Product._meta.db_table} AS product
            SET on_hand = on_hand + incoming.quantity, received = received + incoming.quantity
            FROM unnest(%s::text[], %s::bigint[]) AS incoming (sku, quantity) WHERE incoming.sku = product.sku
            """,  # noqa: S608 - our own table
            [list(quantities), list(quantities.values())],
        )


def _shift(order: Order, giver: str, taker: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH wanted AS MATERIALIZED (
                SELECT product.id, product.sku, line.quantity, product.{giver} < line.quantity AS is_short
                FROM {Product._meta.db_table} AS product JOIN ({WANTED}) AS line ON line.product_id = product.id
            ), moved AS (
                UPDATE {Product._meta.db_table} AS product
                SET {giver} = product.{giver} - wanted.quantity, {taker} = product.{taker} + wanted.quantity
                FROM wanted
                WHERE wanted.id = product.id AND NOT EXISTS (SELECT FROM wanted WHERE is_short)
            )
            SELECT sku FROM wanted WHERE is_short ORDER BY sku
            """,  # noqa: S608 - names of our own tables and columns
            {"id": order.pk},
        )
        if short := [sku for (sku,) in cursor.fetchall()]:
            raise OutOfStock(short)


LOCK = f"""
SELECT {{columns}} FROM {Product._meta.db_table}
WHERE id IN (
    SELECT product_id FROM {OrderLine._meta.db_table}
    WHERE order_id = (SELECT id FROM {Order._meta.db_table} WHERE id = %(id)s AND {{where}})
)
ORDER BY id FOR NO KEY UPDATE
"""  # noqa: S608 - our own tables

WANTED = f"""
SELECT product_id, sum(quantity) AS quantity FROM {OrderLine._meta.db_table}
WHERE order_id = %(id)s GROUP BY product_id
"""  # noqa: S608 - our own tables

SHIFTED = f"""
UPDATE {Product._meta.db_table} AS product
SET {{giver}} = product.{{giver}} - wanted.quantity, {{taker}} = product.{{taker}} + wanted.quantity
FROM ({WANTED}) AS wanted
WHERE wanted.product_id = product.id AND EXISTS (SELECT FROM moved)
"""  # noqa: S608 - our own tables

RESERVED = SHIFTED.format(giver="on_hand", taker="reserved")
SHIPPED = SHIFTED.format(giver="reserved", taker="shipped")
