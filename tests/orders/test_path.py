"""An order's way through the steps, with the sandbox's real servers."""

from __future__ import annotations

import datetime as dt

import pytest

from orders import compensation, services, sweep
from orders.models import Order, Payment, Product, Refund, Shipment
from outbox import redelivery, testing
from outbox.models import Attempt, DeadLetter, Delivery, OutboxMessage
from outbox.relay import relay
from outbox.resilience import SPREAD
from tests.conftest import close_breakers
from tests.factories import ProductFactory, place

pytestmark = pytest.mark.usefixtures("world", "either_way")

STEPS = ["orders.tasks.validate", "orders.tasks.charge", "orders.tasks.fulfill"]


def steps(ran):
    return [name for name in ran if name.startswith("orders.")]


def reload(order):
    return Order.objects.get(pk=order.pk)


def stock(product):
    return Product.objects.values_list("on_hand", "reserved", "shipped").get(pk=product.pk)


def published(order):
    return list(OutboxMessage.objects.filter(key=order.pk).order_by("id").values_list("event_name", flat=True))


def test_a_placed_order_is_validated_charged_and_shipped(drain, world):
    product = ProductFactory(stock=10)
    order = place(product, quantity=3)
    assert steps(drain()) == STEPS

    order = reload(order)
    assert order.status == Order.Status.FULFILLED
    assert order.due_at is None
    assert stock(product) == (7, 0, 3)
    [intent] = world.payments.ledger(kind="payment_intent")
    assert (intent["amount"], intent["currency"]) == (750, "gbp")
    assert world.warehouse.count(kind="shipment") == 1
    assert order.shipment.tracking_number
    assert published(order) == ["orders.order_placed", "orders.order_fulfilled"]
    history = order.transitions.order_by("id").values_list("from_status", "to_status", "task")
    assert list(history) == [
        ("", "placed", ""),
        ("placed", "validated", "orders.tasks.validate"),
        ("validated", "charged", "orders.tasks.charge"),
        ("charged", "fulfilled", "orders.tasks.fulfill"),
    ]


def test_a_declined_card_rejects_the_order_and_frees_its_stock(drain, world):
    product = ProductFactory(stock=5)
    order = place(product, payment_method="pm_card_visa_chargeDeclined")
    drain()

    order = reload(order)
    assert order.status == Order.Status.REJECTED
    assert "declined" in order.reason
    assert stock(product) == (5, 0, 0)
    assert order.payments.get().status == Payment.Status.DECLINED
    assert published(order) == ["orders.order_placed", "orders.order_rejected"]
    assert not DeadLetter.objects.exists()
    assert world.warehouse.count() == 0


def test_an_order_out_of_stock_is_rejected_before_any_charge(drain, world):
    order = place(ProductFactory(sku="RARE", stock=1), quantity=2)
    drain()

    assert (reload(order).status, reload(order).reason) == (Order.Status.REJECTED, "not in stock: RARE")
    assert world.payments.count() == 0


def test_an_order_above_the_limit_is_rejected(drain, settings):
    settings.LARGEST_ORDER_MINOR = 499
    order = place(quantity=2)
    drain()

    assert "limit" in reload(order).reason


def test_a_refused_shipment_is_refunded_and_its_stock_freed(drain, world):
    product = ProductFactory(sku="NOSHIP-1", stock=4)
    order = place(product)
    drain()

    order = reload(order)
    assert order.status == Order.Status.CANCELLED
    assert stock(product) == (4, 0, 0)
    assert order.shipment.status == Shipment.Status.REFUSED
    assert Refund.objects.get().status == Refund.Status.SUCCEEDED
    [refund] = world.payments.ledger(kind="refund")
    assert refund["amount"] == order.total_minor
    assert published(order) == [
        "orders.order_placed",
        "orders.fulfillment_failed",
        "orders.order_refunded",
        "orders.order_cancelled",
    ]


def test_ten_deliveries_of_every_message_take_effect_once(drain, world):
    orders = [
        place(),
        place(ProductFactory(sku="NOSHIP-2")),
        place(payment_method="pm_card_visa_chargeDeclined"),
    ]
    drain()
    before = {order.pk: published(order) for order in orders}
    for _ in range(10):
        OutboxMessage.objects.update(status="pending", not_before=dt.datetime.now(dt.UTC))
        drain()

    assert {order.pk: published(order) for order in orders} == before
    assert world.payments.count(kind="payment_intent") == 3
    assert world.payments.count(kind="refund") == 1
    assert world.warehouse.count(kind="shipment") == 1


def test_a_charge_whose_response_is_lost_is_looked_up_and_not_repeated(drain, world):
    order = place()
    world.payments.control(fault="drop_after", times=1, match=f"order-{order.pk}-charge")
    drain()

    assert reload(order).status == Order.Status.FULFILLED
    [intent] = world.payments.ledger(kind="payment_intent")
    assert intent["times_seen"] == 1
    assert "charge_unknown" in order.transitions.values_list("to_status", flat=True)
    assert Attempt.objects.get().error_class == "OutcomeUnknown"


def test_a_gateway_that_fails_a_few_times_is_tried_again(drain, world):
    order = place()
    world.payments.control(fault="error", status=500, times=2, match=f"order-{order.pk}-charge")
    drain()
    close_breakers()
    drain(redeliveries=True)

    assert reload(order).status == Order.Status.FULFILLED
    assert world.payments.count(kind="payment_intent") == 1


def test_a_gateway_that_is_down_spends_no_attempts_and_buries_nothing(drain, world):
    order = place()
    world.payments.control(fault="error", status=503)
    for _ in range(6):
        drain()
        testing.pass_time(dt.timedelta(hours=1))

    assert not DeadLetter.objects.exists()
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Attempt.Outcome.WAITED}
    assert reload(order).status in (Order.Status.VALIDATED, Order.Status.CHARGE_UNKNOWN)


def test_a_request_the_gateway_refuses_is_buried_at_once_and_replay_finishes_the_order(drain, world):
    order = place(payment_method="pm_no_such_card")
    drain()
    [dead_letter] = DeadLetter.objects.all()
    assert (dead_letter.consumer, dead_letter.attempts, dead_letter.key) == (
        "orders.tasks.charge",
        1,
        str(order.pk),
    )
    assert dead_letter.event_name == "orders.order_placed"
    assert "pm_no_such_card" in dead_letter.error
    assert "stripe.py" in dead_letter.traceback

    Order.objects.filter(pk=order.pk).update(payment_method="pm_card_visa")
    from outbox.dead_letters import resolving

    result = resolving.replay(DeadLetter.objects.all(), by="on call", reason="card token corrected")
    assert (result.done, result.unreadable) == (1, 0)
    drain()
    dead_letter.refresh_from_db()
    assert (dead_letter.resolution, dead_letter.resolved_by, dead_letter.reason) == (
        "recovered",
        "on call",
        "card token corrected",
    )


def test_cancelling_before_the_charge_ends_without_one(drain, world):
    product = ProductFactory(stock=3)
    order = place(product)
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    drain()

    assert reload(order).status == Order.Status.CANCELLED
    assert stock(product) == (3, 0, 0)
    assert world.payments.count() == 0


def test_cancelling_after_the_charge_refunds_it(drain, world):
    product = ProductFactory(stock=3)
    order = place(product)
    with world.warehouse.failing(fault="error", status=503):
        drain()
        assert reload(order).status == Order.Status.CHARGED
        services.request_cancellation(order_id=order.pk, requested_by="customer")
        services.request_cancellation(order_id=order.pk, requested_by="customer")
        drain()

    assert reload(order).status == Order.Status.CANCELLED
    assert stock(product) == (3, 0, 0)
    assert world.payments.count(kind="refund") == 1


def test_a_charge_that_cannot_be_found_yet_holds_up_its_cancellation(drain, world):
    order = place()
    with world.payments.failing(fault="drop_before", match=f"order-{order.pk}-charge"):
        drain()
    close_breakers()
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    drain()
    assert reload(order).status == Order.Status.CHARGE_UNKNOWN

    testing.pass_time(compensation.LOOK_UP_LAG * (1 + SPREAD))
    drain()
    assert reload(order).status == Order.Status.CANCELLED
    assert order.payments.get().status == Payment.Status.ABANDONED
    assert world.payments.count() == 0


def test_a_shipped_order_cannot_be_cancelled(drain):
    order = place()
    drain()

    with pytest.raises(services.NotCancellable, match="fulfilled"):
        services.request_cancellation(order_id=order.pk, requested_by="customer")


def test_a_lost_chain_is_resumed(drain):
    order = place()
    OutboxMessage.objects.update(status="published")
    assert sweep.resume_overdue() == 0

    testing.pass_time(dt.timedelta(minutes=1))
    assert sweep.resume_overdue() == 1
    assert sweep.resume_overdue() == 0
    drain()
    assert reload(order).status == Order.Status.FULFILLED


def test_a_notification_that_waits_does_not_keep_the_sweep_from_a_lost_order(drain):
    order = place(contact=services.Contact(email="customer@example.com"))
    relay.drain()
    testing.purge()
    Delivery.objects.filter(workflow__startswith=sweep.WORKFLOWS).delete()  # it ended without the order
    email = "notifications.workflows.by_email"
    redelivery.redeliver([order.message_id], workflow=email, wait=dt.timedelta(minutes=47))

    testing.pass_time(dt.timedelta(minutes=1))
    assert sweep.resume_overdue() == 1
    drain()
    assert reload(order).status == Order.Status.FULFILLED
    assert Delivery.objects.filter(message_id=order.message_id, workflow=email, status="waiting").exists()


def test_orders_in_a_dead_letter_are_not_resumed_automatically(drain):
    place(payment_method="pm_no_such_card")
    drain()
    testing.pass_time(dt.timedelta(hours=1))

    assert sweep.resume_overdue() == 0
