"""A warehouse that hangs holds its share of the threads that charges and shipments have in common."""

from __future__ import annotations

import time

import pytest

from orders.models import Order, OrderTransition
from outbox.models import Attempt, DeadLetter
from tests import processes
from tests.factories import ProductFactory, place
from tests.processes import eventually

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(180)]

THREADS, ORDERS = 16, 48
PER_SECOND = 10
HANGS_FOR, PROMPTLY = 5.5, 5.0
"""Seconds: the timeout of calls, and the time within which all are charged although the warehouse hangs."""

NOT_NOTICED = 1.0
"""Seconds; a charge that waited for a hanging call would take several times as long."""


def test_payments_go_on_while_the_warehouse_hangs(transactional_db, world, tmp_path):
    world.warehouse.control(fault="hang", latency_ms=60_000)
    with processes.stack(tmp_path) as stack:
        worker = stack.worker(
            "orders", "orders", pool="threads", concurrency=THREADS, PROVIDER_TIMEOUT_SECONDS=str(HANGS_FOR)
        )
        worker.wait_until_ready()
        product = ProductFactory()
        for _ in range(ORDERS):
            place(product)
        began = time.monotonic()
        stack.relay()
        stack.beat()
        paid = Order.objects.filter(status__in=["charged", "fulfilled"])
        eventually(lambda: paid.exists(), worker.output)
        first = time.monotonic()

        eventually(lambda: paid.count() == ORDERS, worker.output, within=PROMPTLY)

        held = Attempt.objects.filter(consumer="orders.tasks.fulfill")
        assert time.monotonic() - first < HANGS_FOR, "no call had ended"
        assert set(held.values_list("outcome", "error_class")) == {("waited", "Crowded")}, began
        world.warehouse.clear_faults()
        eventually(lambda: not Order.objects.exclude(status="fulfilled").exists(), worker.output, within=90)
    assert not DeadLetter.objects.exists()


def test_the_slowest_charges_are_as_fast_while_the_warehouse_hangs(transactional_db, world, tmp_path):
    """Each order is measured, and none is charged later than usual: that holds for every percentile."""
    with processes.stack(tmp_path) as stack:
        worker = stack.worker("orders", "orders", pool="threads", concurrency=THREADS)
        stack.relay().wait_until_ready()
        worker.wait_until_ready()
        product = ProductFactory()
        place_at_a_steady_rate(product)  # opens the connections
        usual = slowest_charge(place_at_a_steady_rate(product), worker)

        world.warehouse.control(fault="hang", latency_ms=60_000)
        slowest = slowest_charge(place_at_a_steady_rate(product), worker)
        world.warehouse.clear_faults()
    assert slowest < usual + NOT_NOTICED, (slowest, usual)


def place_at_a_steady_rate(product):
    began = time.monotonic()
    orders = []
    for number in range(ORDERS):
        time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
        orders.append(place(product))
    return orders


def slowest_charge(orders, worker):
    """Wait until all are charged; return the seconds from placed to charged of the slowest."""
    charged = OrderTransition.objects.filter(order__in=orders, to_status="charged")
    eventually(lambda: charged.count() == len(orders), worker.output)
    return max((at - placed).total_seconds() for at, placed in charged.values_list("at", "order__placed_at"))
