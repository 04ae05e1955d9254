"""Orders that share products: no deadlocks, and the stock adds up."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from orders import effects, ports, services, steps, stock, transitions
from orders.models import Order, Product, Shipment
from tests.factories import ProductFactory, place
from tests.processes import eventually

pytestmark = pytest.mark.django_db(transaction=True)

OTHERS = 4


def receive(order):
    with transaction.atomic():
        stock.receive({order.lines.get().product.sku: 2})


def reserve(order):
    with transaction.atomic():
        stock.reserve(order)


def validate(order):
    assert steps.validate(order_id=str(order.pk))


def charged(order):
    Order.objects.filter(pk=order.pk).update(status="charged")
    order.refresh_from_db()
    return Shipment.objects.create(order=order, idempotency_key=effects.shipment_key(order.pk))


def ship(order):
    parcel = ports.Parcel(id="parcel", carrier="carrier", tracking_number="1")
    assert effects.note_shipped(order, order.shipment, parcel)


def cancel(order):
    with transaction.atomic():
        order.refresh_from_db()
        stock.release(order)
        transitions.move(order, to="cancelled")


def with_a_session_of_its_own(move, order):
    try:
        move(order)
    finally:
        connection.close()


def waiting():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0]


@pytest.mark.parametrize("move", [reserve, receive, validate, ship])
def test_orders_that_wait_for_a_product_get_it_one_after_the_other_while_new_ones_name_it(move):
    product = ProductFactory(stock=1_000)
    first, *orders = [place(product) for _ in range(1 + OTHERS)]
    if move is ship:
        for order in orders:
            validate(order)
            charged(order)
    held, done = threading.Event(), threading.Event()

    def name_the_product():
        """Like a transaction that has inserted a line of an order."""
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(
                    f"SELECT FROM {Product._meta.db_table} WHERE id = %s FOR KEY SHARE", [product.pk]
                )
                held.set()
                done.wait()
        finally:
            connection.close()

    with ThreadPoolExecutor(1 + OTHERS) as sessions:
        try:
            placing = sessions.submit(name_the_product)
            held.wait()
            with transaction.atomic():
                stock.reserve(first)
                others = [sessions.submit(with_a_session_of_its_own, move, order) for order in orders]
                eventually(lambda: waiting() == OTHERS, "all others wait for the product")
            for other in others:
                other.result()
        finally:
            done.set()
        placing.result()

    product.refresh_from_db()
    assert {
        receive: product.received - 1_000,
        ship: product.shipped,
    }.get(move, product.reserved - first.lines.get().quantity) == 2 * OTHERS


def test_an_order_that_waited_for_a_product_is_judged_by_the_stock_that_is_left():
    product = ProductFactory(stock=2)
    first, second = place(product), place(product)

    with ThreadPoolExecutor(1) as sessions:
        with transaction.atomic():
            stock.reserve(first)
            waits = sessions.submit(with_a_session_of_its_own, validate, second)
            eventually(lambda: waiting() == 1, "the second order waits for the product")
        waits.result()

    second.refresh_from_db()
    assert (second.status, second.reason) == ("rejected", f"not in stock: {product.sku}")


@pytest.mark.slow
def test_orders_are_placed_validated_shipped_and_cancelled_side_by_side_without_deadlock():
    products = [ProductFactory(stock=10_000), ProductFactory(stock=10_000)]
    threads, rounds = 6, 100
    together = threading.Barrier(threads)

    def work(number):
        mine = products if number % 2 else products[::-1]
        try:
            together.wait(10)
            for turn in range(rounds):
                order = place(items=[services.Item(sku=product.sku, quantity=1) for product in mine])
                validate(order)
                if turn % 3 == 0:
                    cancel(order)
                else:
                    charged(order)
                    ship(order)
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))

    shipped = threads * (rounds - len(range(0, rounds, 3)))
    assert set(Product.objects.values_list("on_hand", "reserved", "shipped")) == {
        (10_000 - shipped, 0, shipped)
    }
