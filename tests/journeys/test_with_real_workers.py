"""Whole journeys, with worker processes that are killed and a broker that goes away."""

from __future__ import annotations

import pytest

from orders import services
from orders.models import Order, Payment, Product
from outbox.models import DeadLetter, OutboxMessage
from tests.factories import ProductFactory, place
from tests.processes import eventually

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

Status = Order.Status


def status(order):
    return Order.objects.values_list("status", flat=True).get(pk=order.pk)


def all_are(orders, wanted):
    ids = [order.pk for order in orders]
    return set(Order.objects.filter(pk__in=ids).values_list("status", flat=True)) == {wanted}


def captured(world):
    """What the payment provider kept, by order: how often and how much."""
    kept: dict[str, list[int]] = {}
    for intent in world.payments.ledger(kind="payment_intent"):
        if intent["status"] == "succeeded":
            kept.setdefault(intent["metadata"]["order_id"], []).append(intent["amount"])
    return kept


def test_orders_are_worked_off_by_real_workers_and_the_ledgers_agree(stack, world):
    stack.worker("orders", "orders", concurrency=2)
    stack.relay()
    stack.beat()
    product = ProductFactory()
    shipped = [place(product) for _ in range(10)]
    declined = [place(product, payment_method="pm_card_visa_chargeDeclined") for _ in range(3)]
    unshippable = ProductFactory(sku="NOSHIP-journey")
    refused = [place(unshippable) for _ in range(2)]

    eventually(lambda: all_are(shipped, Status.FULFILLED), "shipped")
    eventually(lambda: all_are(declined, Status.REJECTED), "rejected")
    eventually(lambda: all_are(refused, Status.CANCELLED), "cancelled")
    assert captured(world) == {str(order.pk): [order.total_minor] for order in [*shipped, *refused]}
    assert world.payments.count(kind="refund") == 2
    assert world.warehouse.count(kind="shipment") == 10
    assert not DeadLetter.objects.exists()
    product.refresh_from_db()
    assert (product.reserved, product.shipped) == (0, 20)


def test_workers_killed_in_every_step_lose_nothing_and_do_nothing_twice(stack, world):
    worker = stack.worker("orders", "orders", concurrency=3)
    stack.relay()
    stack.beat()
    worker.wait_until_ready()
    charging, shipping, refunding = place(), place(), place(ProductFactory(sku="NOSHIP-killed"))
    held = [
        (world.payments, f"order-{charging.pk}-charge"),
        (world.warehouse, f"order-{shipping.pk}-shipment"),
        (world.payments, f"order-{refunding.pk}-refund"),
    ]
    for server, key in held:
        server.control(fault="slow", latency_ms=3000, times=1, match=key)
    for server, key in held:
        eventually(lambda s=server, k=key: any(f["struck"] and f["match"] == k for f in s.faults()), key)
    worker.kill()
    worker.start()

    eventually(lambda: status(charging) == status(shipping) == Status.FULFILLED, "fulfilled")
    eventually(lambda: status(refunding) == Status.CANCELLED, "refunded")
    assert captured(world) == {str(order.pk): [order.total_minor] for order in (charging, shipping, refunding)}
    assert world.payments.count(kind="refund") == 1
    assert world.warehouse.count(kind="shipment") == 2
    assert not DeadLetter.objects.exists()


def test_a_child_killed_in_a_step_is_made_good(stack, world):
    worker = stack.worker("orders", "orders", concurrency=1)
    stack.relay()
    stack.beat()
    worker.wait_until_ready()
    order = place()
    world.payments.control(fault="slow", latency_ms=3000, times=1, match=f"order-{order.pk}-charge")
    eventually(lambda: any(fault["struck"] for fault in world.payments.faults()), "charging")
    worker.kill_child()

    eventually(lambda: status(order) == Status.FULFILLED, "fulfilled")
    assert captured(world) == {str(order.pk): [order.total_minor]}
    assert Payment.objects.get().calls <= 2


def test_orders_are_taken_while_the_broker_is_down_and_worked_off_when_it_is_back(stack, world, broker):
    stack.worker("orders", "orders", concurrency=2, BROKER_URL=broker.url)
    relay = stack.relay(BROKER_URL=broker.url)
    stack.beat(BROKER_URL=broker.url)
    before = place()
    eventually(lambda: status(before) == Status.FULFILLED, "the first order")

    broker.kill()
    during = [place() for _ in range(5)]
    eventually(lambda: "broker_down" in relay.output(), "the relay has noticed")
    assert set(OutboxMessage.objects.undelivered().values_list("attempts", flat=True)) == {0}
    broker.start()

    eventually(lambda: all_are(during, Status.FULFILLED), "the orders of the outage")
    assert captured(world) == {str(order.pk): [order.total_minor] for order in [before, *during]}
    assert not DeadLetter.objects.exists()


def test_two_relays_and_two_beats_start_nothing_twice(stack, world):
    stack.worker("orders", "orders", concurrency=2)
    for _ in range(2):
        stack.relay()
        stack.beat()
    orders = [place() for _ in range(20)]

    eventually(lambda: all_are(orders, Status.FULFILLED), "fulfilled")
    assert captured(world) == {str(order.pk): [order.total_minor] for order in orders}
    assert {intent["times_seen"] for intent in world.payments.ledger(kind="payment_intent")} == {1}


def test_a_customer_who_cancels_during_the_charge_gets_the_money_back(stack, world):
    stack.worker("orders", "orders", concurrency=2)
    stack.relay()
    stack.beat()
    product = ProductFactory(stock=2)
    order = place(product)
    world.payments.control(fault="slow", latency_ms=1500, times=1, match=f"order-{order.pk}-charge")
    eventually(lambda: any(fault["struck"] for fault in world.payments.faults()), "charging")
    services.request_cancellation(order_id=order.pk, requested_by="customer")

    eventually(lambda: status(order) == Status.CANCELLED, "cancelled")
    [intent] = world.payments.ledger(kind="payment_intent")
    assert intent["amount_refunded"] == intent["amount"] == order.total_minor
    assert Product.objects.values_list("on_hand", "reserved").get(pk=product.pk) == (2, 0)
    assert world.warehouse.count() == 0
