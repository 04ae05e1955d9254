"""A provider that captures another amount than the order's: noticed at once, and given back as captured."""

from __future__ import annotations

import datetime as dt

import pytest

from orders.adapters import stripe
from orders.dead_letters import attention
from orders.models import Order, Payment
from outbox import testing
from outbox.database import clock
from outbox.dead_letters import resolving
from outbox.models import DeadLetter
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


def restore():
    """From now on, orders there are may be known better by the providers."""
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
    report = examination.run(providers=True)
    assert not [finding.as_json() for finding in report.findings if finding.verdict == "violated"]


def test_once_it_is_corrected_at_the_provider_a_replay_goes_on(world, drain, differs):
    capture(world, amount_received=500)
    resolving.replay(DeadLetter.objects.all(), by="ops", reason="captured the rest")
    wait(drain)

    assert now(differs).status == Order.Status.FULFILLED
    assert DeadLetter.objects.get(error_class="ChargeDiffers").resolution == "recovered"
