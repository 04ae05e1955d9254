"""
Stock moves with orders: reserved, shipped, released, each for all lines at once or not at all.

All functions run in the caller's transaction and lock products in the order of their keys, so that
orders that share products cannot deadlock. Products are locked by a statement of their own: one that locks a
row and then updates it finds, when it waited for the lock, the row's old version, locks the newest one a second
time, and waits for whoever waits for it. PostgreSQL does so when others hold the row by a foreign key, as new
orders do.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.db import connection

from orders.models import Order, OrderLine, Product


class OutOfStock(Exception):
    """Some products of the order are not there in the wanted quantity; `skus` names them."""

    def __init__(self, skus: list[str]) -> None:
        super().__init__(", ".join(skus))
        self.skus = skus


def reserve(order: Order) -> None:
    """
    Promise the order its products.

    Raises:
        OutOfStock: if one of them is short; then nothing is reserved.
    """
    _shift(order, "on_hand", "reserved")


def release(order: Order) -> None:
    """Take back what was promised to the order."""
    _shift(order, "reserved", "on_hand")


def ship(order: Order) -> None:
    """Hand over what was promised to the order."""
    _shift(order, "reserved", "shipped")


def receive(quantities: Mapping[str, int]) -> None:
    """Take in so many of each product, by SKU."""
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
            SELECT FROM {Product._meta.db_table}
            WHERE id IN (SELECT product_id FROM {OrderLine._meta.db_table} WHERE order_id = %s)
            ORDER BY id FOR NO KEY UPDATE
            """,  # noqa: S608 - names of our own tables
            [order.pk],
        )
        cursor.execute(
            f"""
            WITH wanted AS MATERIALIZED (
                SELECT product.id, product.sku, line.quantity, product.{giver} < line.quantity AS is_short
                FROM {Product._meta.db_table} AS product JOIN (
                    SELECT product_id, sum(quantity) AS quantity FROM {OrderLine._meta.db_table}
                    WHERE order_id = %s GROUP BY product_id
                ) AS line ON line.product_id = product.id
            ), moved AS (
                UPDATE {Product._meta.db_table} AS product
                SET {giver} = product.{giver} - wanted.quantity, {taker} = product.{taker} + wanted.quantity
                FROM wanted
                WHERE wanted.id = product.id AND NOT EXISTS (SELECT FROM wanted WHERE is_short)
            )
            SELECT sku FROM wanted WHERE is_short ORDER BY sku
            """,  # noqa: S608 - names of our own tables and columns
            [order.pk],
        )
        if short := [sku for (sku,) in cursor.fetchall()]:
            raise OutOfStock(short)
