"""A provider that captures or refunds another amount than it should: detected at once."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from notifications.models import Notification
from orders import adapters, services
from orders.adapters import stripe
from orders.contracts import OrderRefunded
from orders.dead_letters import attention
from orders.models import Order, Payment, Refund
from outbox import testing
from outbox.database import clock
from outbox.dead_letters import resolving
from outbox.models import DeadLetter, OutboxMessage
from outbox.verification import examination, restores
from tests.conftest import close_breakers
from tests.factories import place

pytestmark = pytest.mark.usefixtures("world")

OTHERS = {
    "more": {"amount": 700, "amount_received": 700},
    "a part of what was reserved": {"amount_received": 300},
    "another currency": {"currency": "eur", "amount_received": 500},
}


def now(order):
    return Order.objects.get(pk=order.pk)


def wait(drain, span=dt.timedelta(minutes=20)):
    testing.pass_time(span)
    close_breakers()
    drain()


def capture(world, **changes):
    [intent] = world.payments.ledger(kind="payment_intent")
    world.payments.change("payment_intent", intent["id"], status="succeeded", **changes)


def place_undecided(world, drain):
    order = place()
    world.payments.control(fault="state", state="processing", match=f"order-{order.pk}-charge", times=1)
    drain()
    assert now(order).status == Order.Status.CHARGE_UNKNOWN
    return order


def let_be_older(world, kind):
    """Verification leaves records alone that are so young that our books may not have them yet."""
    yesterday = int(time.time()) - 86_400
    for entry in world.payments.ledger(kind=kind):
        world.payments.change(kind, entry["id"], created=yesterday)


def violated():
    report = examination.run(providers=True)
    return [finding.as_json() for finding in report.findings if finding.verdict == "violated"]


def restore():
    """From now on, providers may know more about existing orders than the database."""
    restores.declare(clock.now(), by="ops")


@pytest.fixture(params=[False, True], ids=["", "after a restore"])
def differs(request, world, drain):
    """An order of 500 of which 300 were captured."""
    order = place_undecided(world, drain)
    if request.param:
        restore()
    capture(world, amount_received=300)
    wait(drain)
    return order


def assert_noticed(world, order):
    [dead_letter] = DeadLetter.objects.all()
    assert (dead_letter.error_class, dead_letter.key) == ("ChargeDiffers", str(order.pk))
    assert "5.00 GBP" in dead_letter.error
    assert attention.is_needed(now(order))
    assert now(order).status not in (Order.Status.CHARGED, Order.Status.FULFILLED)
    assert not Payment.objects.filter(status=Payment.Status.SUCCEEDED).exists()
    assert world.warehouse.count(kind="shipment") == 0


@pytest.mark.parametrize("captured", OTHERS.values(), ids=OTHERS)
def test_a_charge_of_another_amount_is_a_dead_letter_and_nothing_is_shipped(world, drain, captured):
    order = place_undecided(world, drain)
    capture(world, **captured)
    wait(drain)

    assert_noticed(world, order)


def test_an_answer_that_names_another_amount_is_noticed_at_once(world, drain, monkeypatch):
    monkeypatch.setattr(stripe, "_amount", lambda minor, currency: minor * 10)
    order = place()
    drain()

    assert_noticed(world, order)
    assert "50.00 GBP" in DeadLetter.objects.get().error


def test_after_a_restore_it_is_noticed_too(world, differs):
    assert_noticed(world, differs)


def test_cancelling_it_gives_back_what_was_captured(world, drain, differs):
    resolving.discard(DeadLetter.objects.all(), by="ops", reason="a slip", cancel=True)
    wait(drain)

    assert now(differs).status == Order.Status.CANCELLED
    assert [refund["amount"] for refund in world.payments.ledger(kind="refund")] == [300]
    assert Payment.objects.get().refund.amount_minor == 300
    let_be_older(world, "payment_intent")
    let_be_older(world, "refund")
    assert not violated()


def test_once_it_is_corrected_at_the_provider_a_replay_goes_on(world, drain, differs):
    capture(world, amount_received=500)
    resolving.replay(DeadLetter.objects.all(), by="ops", reason="captured the rest")
    wait(drain)

    assert now(differs).status == Order.Status.FULFILLED
    assert DeadLetter.objects.get(error_class="ChargeDiffers").resolution == "recovered"


# refunds -------------------------------------------------------------------------------------------


@pytest.fixture
def refunded_in_part(world, drain):
    """A cancelled order of 500 of which the provider has refunded 200."""
    order = place()
    with world.warehouse.failing(fault="error", status=503):
        drain()
    world.payments.control(fault="state", state="pending", match=f"order-{order.pk}-refund", times=1)
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    wait(drain)
    [made] = world.payments.ledger(kind="refund")
    world.payments.change("refund", made["id"], status="succeeded", amount=200)
    wait(drain)
    return order


def test_a_refund_of_another_amount_is_a_dead_letter_and_nobody_is_told_that_it_was_made(refunded_in_part):
    [dead_letter] = DeadLetter.objects.all()
    assert (dead_letter.consumer, dead_letter.error_class) == ("orders.tasks.refund", "RefundDiffers")
    assert [amount in dead_letter.error for amount in ("2.00 GBP", "5.00 GBP")] == [True, True]
    assert now(refunded_in_part).status == Order.Status.CANCELLING
    assert Refund.objects.get().status == Refund.Status.REQUESTED
    assert "refunded" not in set(Notification.objects.values_list("template", flat=True))


def test_its_rest_is_given_back_by_other_means(world, refunded_in_part, drain):
    resolving.discard(DeadLetter.objects.all(), by="ops", reason="3.00 by bank transfer", mark_done=True)
    wait(drain)

    assert now(refunded_in_part).status == Order.Status.CANCELLED
    let_be_older(world, "payment_intent")
    let_be_older(world, "refund")
    assert not violated()


@pytest.mark.parametrize("page", [100, 1])
def test_a_charge_that_was_given_back_in_parts_by_hand_is_refunded(world, drain, monkeypatch, page):
    monkeypatch.setattr(stripe, "PAGE", page)
    order = place()
    with world.warehouse.failing(fault="error", status=503):
        drain()
    [charge] = world.payments.ledger(kind="payment_intent")
    for amount in (200, 300):
        adapters.payment_gateway().refund(
            charge_id=charge["id"], amount_minor=amount, currency="GBP", idempotency_key=f"by hand, {amount}"
        )
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    wait(drain)

    assert now(order).status == Order.Status.CANCELLED
    assert OutboxMessage.objects.get(event_name=OrderRefunded.name).payload["refunded_minor"] == 500
