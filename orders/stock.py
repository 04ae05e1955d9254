"""
Stock moves with orders: reserved, shipped, released, each for all lines at once or not at all.

All functions run in the caller's transaction and lock products in the order of their keys, so that
orders that share products cannot deadlock.
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
            WITH locked AS MATERIALIZED (
                SELECT product.id, incoming.quantity
                FROM {Product._meta.db_table} AS product
                JOIN unnest(%s::text[], %s::bigint[]) AS incoming (sku, quantity) ON incoming.sku = product.sku
                ORDER BY product.id FOR NO KEY UPDATE OF product
            )
            UPDATE {Product._meta.db_table} AS product
            SET on_hand = on_hand + locked.quantity, received = received + locked.quantity
            FROM locked WHERE locked.id = product.id
            """,  # noqa: S608 - our own table
            [list(quantities), list(quantities.values())],
        )


def _shift(order: Order, giver: str, taker: str) -> None:
    """Lock, look and move in one statement: it is the busiest one of an order's life."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH wanted AS (
                SELECT product_id, sum(quantity) AS quantity FROM {OrderLine._meta.db_table}
                WHERE order_id = %s GROUP BY product_id
            ), locked AS MATERIALIZED (
                SELECT product.id, product.sku, wanted.quantity, product.{giver} < wanted.quantity AS is_short
                FROM {Product._meta.db_table} AS product JOIN wanted ON wanted.product_id = product.id
                ORDER BY product.id FOR NO KEY UPDATE OF product
            ), moved AS (
                UPDATE {Product._meta.db_table} AS product
                SET {giver} = product.{giver} - locked.quantity, {taker} = product.{taker} + locked.quantity
                FROM locked
                WHERE locked.id = product.id AND NOT EXISTS (SELECT FROM locked WHERE is_short)
            )
            SELECT sku FROM locked WHERE is_short ORDER BY sku
            """,  # noqa: S608 - names of our own tables and columns
            [order.pk],
        )
        if short := [sku for (sku,) in cursor.fetchall()]:
            raise OutOfStock(short)
