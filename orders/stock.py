"""
Stock moves with orders: reserved, shipped, released, each for all lines at once or not at all.

All functions run in the caller's transaction and lock products in the order of their keys, so that
orders that share products cannot deadlock.
"""

from __future__ import annotations

from django.db import connection
from django.db.models import Sum

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
    lines = OrderLine.objects.filter(order=order).values("product_id")
    wanted = dict(lines.annotate(wanted=Sum("quantity")).values_list("product_id", "wanted"))
    products = Product.objects.filter(pk__in=wanted).order_by("pk").select_for_update(no_key=True)
    short = [product.sku for product in products if product.on_hand < wanted[product.pk]]
    if short:
        raise OutOfStock(short)
    _shift(order, "on_hand", "reserved")


def release(order: Order) -> None:
    """Take back what was promised to the order."""
    _lock(order)
    _shift(order, "reserved", "on_hand")


def ship(order: Order) -> None:
    """Hand over what was promised to the order."""
    _lock(order)
    _shift(order, "reserved", "shipped")


def _lock(order: Order) -> None:
    products = Product.objects.filter(pk__in=OrderLine.objects.filter(order=order).values("product_id"))
    list(products.order_by("pk").select_for_update(no_key=True).values_list("pk"))


def _shift(order: Order, giver: str, taker: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE {Product._meta.db_table} AS product
            SET {giver} = product.{giver} - line.quantity, {taker} = product.{taker} + line.quantity
            FROM (
                SELECT product_id, sum(quantity) AS quantity FROM {OrderLine._meta.db_table}
                WHERE order_id = %s GROUP BY product_id
            ) AS line
            WHERE line.product_id = product.id
            """,  # noqa: S608 - names of our own columns
            [order.pk],
        )
