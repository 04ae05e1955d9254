"""What happens when it is unknown whether the payment provider has acted."""

from __future__ import annotations

import datetime as dt

import pytest

from orders import services
from orders.models import Order, Payment
from outbox import testing
from outbox.dead_letters import resolving
from outbox.models import Attempt, DeadLetter
from outbox.resilience import breaker
from tests.conftest import close_breakers
from tests.factories import place

pytestmark = pytest.mark.usefixtures("world")

DAY = dt.timedelta(days=1)


def key(order):
    return f"order-{order.pk}-charge"


def status(order):
    return Order.objects.values_list("status", flat=True).get(pk=order.pk)


def wait(drain, span):
    testing.pass_time(span)
    close_breakers()
    return drain()


def replay():
    resolving.replay(DeadLetter.objects.all(), by="on call", reason="looked at the provider")


def test_while_the_lookup_fails_too_the_order_waits_visibly_under_one_key(drain, world):
    order = place()
    world.payments.control(fault="drop_after", times=1, match=key(order))
    with world.payments.failing(fault="error", status=500, match="/search"):
        drain()
        wait(drain, dt.timedelta(minutes=10))
        assert status(order) == Order.Status.CHARGE_UNKNOWN
        assert world.payments.count(kind="payment_intent") == 1

    wait(drain, dt.timedelta(hours=1))
    assert status(order) == Order.Status.FULFILLED
    assert [intent["idempotency_key"] for intent in world.payments.ledger(kind="payment_intent")] == [
        key(order)
    ]


def test_a_decline_whose_response_was_lost_rejects_the_order(drain, world):
    order = place(payment_method="pm_card_visa_chargeDeclined")
    world.payments.control(fault="drop_after", times=1, match=key(order))
    drain()

    assert status(order) == Order.Status.REJECTED
    assert world.payments.count(kind="payment_intent") == 1


def test_after_the_key_window_a_charge_is_looked_up_and_found(drain, world):
    order = place()
    world.payments.control(fault="drop_after", times=1, match=key(order))
    with world.payments.failing(fault="error", status=500, match="/search"):
        drain()
    wait(drain, DAY)

    assert status(order) == Order.Status.FULFILLED
    assert Payment.objects.get().calls == 1


def test_after_the_key_window_a_charge_that_is_not_found_is_not_made(drain, world):
    order = place()
    with world.payments.failing(fault="drop_before", match=key(order)):
        drain()
    wait(drain, DAY)
    assert DeadLetter.objects.get().error_class == "ChargeUntraceable"
    assert status(order) == Order.Status.CHARGE_UNKNOWN

    replay()
    drain()
    assert world.payments.count() == 0
    assert DeadLetter.objects.unresolved().get().error_class == "ChargeUntraceable"


def test_a_dead_letter_older_than_the_key_window_is_looked_up_before_anything_is_done(drain, world):
    order = place()
    world.payments.control(fault="drop_after", times=1, match=key(order))
    with world.payments.failing(fault="error", status=400, match="/search"):
        drain()
    assert DeadLetter.objects.get().error_class == "PaymentRequestRefused"

    testing.pass_time(2 * DAY)
    replay()
    wait(drain, dt.timedelta())
    assert status(order) == Order.Status.FULFILLED
    assert world.payments.count(kind="payment_intent") == 1


def test_a_call_without_effect_may_be_repeated_at_any_time(drain, world):
    refused, waiting = place(payment_method="pm_no_such_card"), place()
    with world.payments.failing(fault="error", status=503, match=key(waiting)):
        drain()
    assert set(Payment.objects.values_list("first_asked_at", flat=True)) == {None}

    Order.objects.filter(pk=refused.pk).update(payment_method="pm_card_visa")
    testing.pass_time(2 * DAY)
    replay()
    wait(drain, dt.timedelta())
    assert status(refused) == status(waiting) == Order.Status.FULFILLED


def test_a_parcel_that_left_before_its_worker_died_stays_shipped_although_the_order_was_cancelled(drain, world):
    order = place()
    with world.warehouse.failing(fault="drop_after", match=f"order-{order.pk}-shipment"):
        drain()
    assert status(order) == Order.Status.CHARGED
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    wait(drain, dt.timedelta(minutes=1))

    assert status(order) == Order.Status.FULFILLED
    assert world.payments.count(kind="refund") == 0


def test_a_call_in_progress_is_waited_for_and_opens_no_breaker(drain, world):
    order = place()
    world.payments.control(fault="error", status=409, times=5, match=key(order))
    for _ in range(6):
        drain()
        testing.pass_time(dt.timedelta(seconds=5))

    assert status(order) == Order.Status.FULFILLED
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Attempt.Outcome.WAITED}
    assert breaker("payments").state() == "closed"


@pytest.mark.slow
def test_two_hours_without_the_provider_bury_nothing(drain, world):
    orders = [place() for _ in range(3)]
    with world.payments.failing(fault="refuse"):
        for _ in range(24):
            wait(drain, dt.timedelta(minutes=5))
    assert not DeadLetter.objects.exists()

    wait(drain, dt.timedelta(minutes=5))
    assert {status(order) for order in orders} == {Order.Status.FULFILLED}
