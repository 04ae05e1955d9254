"""Repairs wait for running steps on the same rows."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction

from orders import moves, stock
from orders.invariants import repairs
from orders.models import Order, Product
from orders.transitions import move
from tests.factories import ProductFactory, place
from tests.processes import eventually

WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


@pytest.fixture
def reserving(transactional_db):
    """An order whose reservation is made in a transaction that stays open until it is results to commit."""
    product = ProductFactory(stock=10)
    order, reserved, may_commit = place(product, quantity=4), threading.Event(), threading.Event()

    def validate():
        with transaction.atomic():
            stock.reserve(order)
            move(Order.objects.get(pk=order.pk), to=moves.Status.VALIDATED)
            reserved.set()
            may_commit.wait(10)
        connection.close()

    step = threading.Thread(target=validate)
    step.start()
    reserved.wait(10)
    yield product, may_commit
    may_commit.set()
    step.join(10)


def test_stock_that_is_being_reserved_is_not_released(reserving):
    product, may_commit = reserving
    results = []

    def repair():
        with transaction.atomic():
            results.append(repairs.RELEASE_STOCK.apply(product.sku))
        connection.close()

    repairing = threading.Thread(target=repair)
    repairing.start()
    eventually(is_waiting, "the repair waits for the step")
    may_commit.set()
    repairing.join(10)

    assert results == [""]
    assert Product.objects.values_list("reserved", "on_hand").get(pk=product.pk) == (4, 6)


def is_waiting():
    with connection.cursor() as cursor:
        cursor.execute(WAITING)
        return cursor.fetchone()[0] == 1
