"""Orders that share products do not wait for each other in a circle."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from orders import stock
from orders.models import Product
from tests.factories import ProductFactory, place
from tests.processes import eventually

pytestmark = pytest.mark.django_db(transaction=True)

OTHERS = 4


def receive(order):
    stock.receive({order.lines.get().product.sku: 2})


def waiting():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0]


@pytest.mark.parametrize("move", [stock.reserve, receive])
def test_orders_that_wait_for_a_product_get_it_one_after_the_other_while_new_ones_name_it(move):
    product = ProductFactory(stock=1_000)
    orders = [place(product) for _ in range(1 + OTHERS)]
    held, done = threading.Event(), threading.Event()

    def name_the_product():
        """As a transaction does that has inserted a line of an order."""
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(
                    f"SELECT FROM {Product._meta.db_table} WHERE id = %s FOR KEY SHARE", [product.pk]
                )
                held.set()
                done.wait()
        finally:
            connection.close()

    def move_another(order):
        try:
            with transaction.atomic():
                move(order)
        finally:
            connection.close()

    with ThreadPoolExecutor(1 + OTHERS) as sessions:
        try:
            placing = sessions.submit(name_the_product)
            held.wait()
            with transaction.atomic():
                move(orders[0])
                others = [sessions.submit(move_another, order) for order in orders[1:]]
                eventually(lambda: waiting() == OTHERS, "all others wait for the product")
            for other in others:
                other.result()
        finally:
            done.set()
        placing.result()

    product.refresh_from_db()
    assert product.on_hand + product.reserved == product.received
    assert (product.reserved or product.received - 1_000) == 2 * len(orders)
