"""Charges and refunds that the provider has accepted but not decided: nothing is concluded from them."""

from __future__ import annotations

import datetime as dt

import pytest
from django.urls import reverse

from notifications.models import Notification
from orderflow.ops import order_story
from orders import services
from orders.adapters import stripe_states
from orders.api import operations
from orders.clients import tokens
from orders.dead_letters import attention
from orders.models import Order, Payment, Product, Refund
from outbox import testing
from outbox.dead_letters import resolving
from outbox.models import Attempt, DeadLetter
from outbox.resilience import breaker
from outbox.verification import examination
from tests.admin.conftest import staff
from tests.conftest import close_breakers
from tests.factories import place
from tests.orders.api.client import ApiClient, clear_limits
from tests.slow import but_first

pytestmark = pytest.mark.usefixtures("world")


def now(order):
    return Order.objects.get(pk=order.pk)


def wait(drain, span=dt.timedelta(minutes=20)):
    testing.pass_time(span)
    close_breakers()
    return drain()


def notified():
    return set(Notification.objects.values_list("template", flat=True))


def place_left_in(world, state, **wished):
    order = place(**wished)
    world.payments.control(fault="state", state=state, match=f"order-{order.pk}-charge", times=1)
    return order


def settle(world, **changes):
    [intent] = world.payments.ledger(kind="payment_intent")
    world.payments.change("payment_intent", intent["id"], **changes)


CAPTURED = {"status": "succeeded", "amount_received": 500}


@pytest.mark.parametrize(
    ("state", "error_class"), but_first([("processing", "ChargeUndecided"), ("requires_capture", "ChargeHeld")])
)
def test_an_undecided_charge_is_waited_for_visibly_and_without_attempts(world, drain, state, error_class):
    order = place_left_in(world, state)
    drain()
    for _ in range(3):
        wait(drain)

    assert now(order).status == Order.Status.CHARGE_UNKNOWN
    assert Payment.objects.get().status == Payment.Status.UNKNOWN
    assert stripe_states.WORDS[state] in Payment.objects.get().error
    assert set(Attempt.objects.values_list("outcome", "error_class")) == {("waited", error_class)}
    assert breaker("payments").state() == "closed"
    assert not notified() & {"rejected", "cancelled"}
    assert world.payments.count(kind="payment_intent") == 1


@pytest.mark.parametrize("state", but_first(["processing", "requires_capture"]))
def test_a_charge_that_is_captured_late_goes_on(world, drain, state):
    order = place_left_in(world, state)
    drain()
    settle(world, **CAPTURED)
    wait(drain)

    assert now(order).status == Order.Status.FULFILLED
    assert world.payments.count(kind="payment_intent") == 1


def test_a_charge_that_fails_late_rejects_the_order(world, drain):
    order = place_left_in(world, "processing")
    drain()
    settle(world, status="requires_payment_method")
    wait(drain)

    assert now(order).status == Order.Status.REJECTED
    assert Product.objects.get().reserved == 0
    assert "rejected" in notified()


def test_undecided_for_longer_than_the_key_is_remembered_it_is_still_never_charged_again(world, drain):
    order = place_left_in(world, "processing")
    drain()
    for _ in range(3):
        wait(drain, dt.timedelta(days=1))
    assert now(order).status == Order.Status.CHARGE_UNKNOWN

    settle(world, **CAPTURED)
    wait(drain)
    assert now(order).status == Order.Status.FULFILLED
    assert world.payments.count(kind="payment_intent") == 1
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("state", but_first(["requires_action", "requires_confirmation"]))
def test_a_charge_that_needs_the_customer_is_cancelled_before_the_order_is_rejected(world, drain, state):
    order = place_left_in(world, state)
    with world.payments.failing(fault="error", status=503, match="/cancel"):
        drain()
        assert now(order).status == Order.Status.CHARGE_UNKNOWN
        assert "rejected" not in notified()
    wait(drain)

    assert now(order).status == Order.Status.REJECTED
    assert now(order).reason == f"payment declined: {stripe_states.WORDS[state]}"
    assert [intent["status"] for intent in world.payments.ledger(kind="payment_intent")] == ["canceled"]
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {"waited"}


def test_a_cancelled_charge_whose_response_is_lost_is_looked_up(world, drain):
    order = place_left_in(world, "requires_action")
    with world.payments.failing(fault="drop_after", times=1, match="/cancel"):
        drain()
    wait(drain)

    assert now(order).status == Order.Status.REJECTED
    assert world.payments.count(kind="payment_intent") == 1


def test_a_customer_who_was_faster_than_our_cancellation_has_paid(world, drain):
    order = place_left_in(world, "requires_action")
    with world.payments.failing(fault="error", status=503, match="/cancel"):
        drain()
    settle(world, **CAPTURED)
    wait(drain)

    assert now(order).status == Order.Status.FULFILLED


def test_an_unknown_state_is_an_unknown_outcome_and_ends_as_a_dead_letter(world, drain):
    order = place_left_in(world, "requires_oracle")
    drain()
    assert now(order).status == Order.Status.CHARGE_UNKNOWN
    testing.pass_time(dt.timedelta(hours=1))
    drain(redeliveries=True)

    [dead_letter] = DeadLetter.objects.all()
    assert "'requires_oracle'" in dead_letter.error
    assert not notified() & {"rejected", "cancelled"}
    assert breaker("payments").state() == "closed"


def test_a_cancellation_waits_for_a_charge_that_may_still_capture(world, drain):
    order = place_left_in(world, "processing")
    drain()
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    wait(drain)
    assert now(order).status == Order.Status.CHARGE_UNKNOWN
    assert "cancelled" not in notified()

    settle(world, **CAPTURED)
    wait(drain)
    assert now(order).status == Order.Status.CANCELLED
    assert [refund["amount"] for refund in world.payments.ledger(kind="refund")] == [500]


def test_a_cancellation_cancels_a_reserved_charge(world, drain):
    order = place_left_in(world, "requires_capture")
    drain()
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    wait(drain)

    assert now(order).status == Order.Status.CANCELLED
    assert [intent["status"] for intent in world.payments.ledger(kind="payment_intent")] == ["canceled"]
    assert world.payments.count(kind="refund") == 0


# refunds -------------------------------------------------------------------------------------------


def refund_left_in(world, drain, state):
    """An order that is charged and then cancelled, whose refund is left in `state`."""
    order = place()
    with world.warehouse.failing(fault="error", status=503):
        drain()
    world.payments.control(fault="state", state=state, match=f"order-{order.pk}-refund", times=1)
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    wait(drain)
    return order


@pytest.mark.parametrize("state", but_first(["pending", "requires_action"]))
def test_a_refund_counts_as_done_only_when_it_is(world, drain, state):
    order = refund_left_in(world, drain, state)
    wait(drain, dt.timedelta(days=2))
    assert now(order).status == Order.Status.CANCELLING
    assert (Refund.objects.get().status, Refund.objects.get().resolved_at) == (Refund.Status.REQUESTED, None)
    assert state in Refund.objects.get().error
    assert not notified() & {"refunded", "cancelled"}

    [made] = world.payments.ledger(kind="refund")
    world.payments.change("refund", made["id"], status="succeeded")
    wait(drain)
    assert now(order).status == Order.Status.CANCELLED
    assert {"refunded", "cancelled"} <= notified()
    assert world.payments.count(kind="refund") == 1
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("state", but_first(["failed", "canceled"]))
def test_a_failed_refund_is_a_dead_letter_and_replay_uses_the_next_key(world, drain, state):
    order = refund_left_in(world, drain, state)
    [dead_letter] = DeadLetter.objects.all()
    assert (dead_letter.error_class, dead_letter.consumer) == ("RefundFailed", "orders.tasks.refund")
    assert now(order).status == Order.Status.CANCELLING
    assert Refund.objects.get().status == Refund.Status.FAILED
    assert "refunded" not in notified()

    resolving.replay(DeadLetter.objects.all(), by="on call", reason="the bank has the new account")
    wait(drain)
    assert now(order).status == Order.Status.CANCELLED
    assert [refund["idempotency_key"] for refund in world.payments.ledger(kind="refund")] == [
        f"order-{order.pk}-refund",
        f"order-{order.pk}-refund-2",
    ]


def test_an_unknown_state_of_a_refund_is_an_unknown_outcome(world, drain):
    order = refund_left_in(world, drain, "requires_oracle")

    assert now(order).status == Order.Status.CANCELLING
    assert Attempt.objects.filter(error__contains="'requires_oracle'").exists()


def test_a_refund_that_the_bank_sends_back_later_is_found_by_the_comparison_with_the_provider(world, drain):
    order = refund_left_in(world, drain, "succeeded")
    assert now(order).status == Order.Status.CANCELLED
    [made] = world.payments.ledger(kind="refund")
    world.payments.change("refund", made["id"], status="failed")

    report = examination.run(providers=True)
    violated = [finding.invariant.name for finding in report.findings if finding.verdict == "violated"]
    assert "our-refunds-are-at-the-provider" in violated


# charges that need a person --------------------------------------------------------------------------


def api_answer(order):
    clear_limits()
    return ApiClient(*tokens.ORDINARY, "orders:read:all").get(f"/api/v1/orders/{order.number}")


def test_an_order_whose_charge_is_reserved_only_needs_attention_until_somebody_decides(world, drain, client):
    order, other = place_left_in(world, "requires_capture"), place()
    drain()
    [charge] = [intent["id"] for intent in world.payments.ledger(kind="payment_intent", match=str(order.pk))]

    assert list(attention.waiting(Order.objects.all())) == [order]
    assert attention.needed_by([now(order), now(other)]) == {order.pk}
    answer = api_answer(order)
    assert (answer.json()["needs_attention"], answer["Retry-After"]) == (True, operations.PEOPLE_TAKE)
    assert f"capture or cancel it there ({charge})" in order_story.outlook(now(order))
    client.force_login(staff("support"))
    page = client.get(reverse("admin:orders_order_change", args=[order.pk]))
    assert "This order needs attention.</strong> Its charge is reserved at the payment provider" in page.text

    since = Payment.objects.get(order=order).held_since
    wait(drain)
    assert Payment.objects.get(order=order).held_since == since - dt.timedelta(minutes=20)
    world.payments.change("payment_intent", charge, **CAPTURED)
    wait(drain)
    assert now(order).status == Order.Status.FULFILLED
    assert not attention.is_needed(now(order))
    assert list(attention.waiting(Order.objects.all())) == []


@pytest.mark.parametrize("state", ["processing", "requires_oracle"])
def test_a_charge_that_needs_no_person_needs_no_attention(world, drain, state):
    order = place_left_in(world, state)
    drain()

    assert now(order).status == Order.Status.CHARGE_UNKNOWN
    assert not attention.is_needed(now(order))


def test_a_charge_that_the_bank_takes_up_again_needs_no_attention_any_more(world, drain):
    order = place_left_in(world, "requires_capture")
    drain()
    settle(world, status="processing")
    wait(drain)

    assert now(order).status == Order.Status.CHARGE_UNKNOWN
    assert not attention.is_needed(now(order))
    assert attention.needed_by([now(order)]) == set()


def test_a_reserved_charge_of_a_cancelled_order_needs_nobody(world, drain):
    order = place_left_in(world, "requires_capture")
    drain()
    services.request_cancellation(order_id=order.pk, requested_by="customer")

    assert not attention.is_needed(now(order))
    assert attention.needed_by([now(order)]) == set()
    assert list(attention.waiting(Order.objects.all())) == []
