"""
Whatever one value of the providers' responses always is, an order ends, waits, or has a dead letter with the
reason. It is charged once and shipped once, and no provider is called without end.
"""

from __future__ import annotations

import datetime as dt

import pytest

from notifications.models import Notification
from orders import services, sweep
from orders.models import Order
from outbox import testing
from outbox.models import Attempt, DeadLetter
from tests.factories import ProductFactory, place
from tests.hostile.values import CORPUS
from tests.slow import but_first

pytestmark = pytest.mark.usefixtures("no_breakers")

ROUNDS = 8
"""Rounds in which an unfinished order is continued, with hours between them."""

MOST_REQUESTS = 50
"""The most requests of one kind for one order: 3 attempts in 5 rounds for 3 notifications, and some more."""

SCENARIOS = {
    "fulfilled": {},
    "declined": {"payment_method": "pm_card_visa_chargeDeclined"},
    "cannot be shipped": {"sku": "NOSHIP-1"},
}

SHARE = 4
"""One in so many places is tried; with `--slow` all are tried."""


@pytest.fixture
def product(transactional_db):
    return ProductFactory(sku="NOSHIP-1", stock=100_000), ProductFactory(sku="SHIPS", stock=100_000)


def order_of(scenario):
    changed = dict(SCENARIOS[scenario])
    item = services.Item(sku=changed.pop("sku", "SHIPS"), quantity=2)
    contact = services.Contact(
        name="Ada Example", email="ada@example.com", phone="+447700900123", push_token="device-ada"
    )
    return place(items=[item], contact=contact, **changed)


def judge(spoilt, world, drain, scenario, where, value):
    spoilt.spoil(where, value)
    order, what = order_of(scenario), f"{scenario}: {where} as {value!r}"
    drain()
    for _ in range(ROUNDS):
        if is_over(order):
            break
        testing.pass_time(dt.timedelta(hours=3))
        sweep.resume_overdue()
        drain()
    requests = list(spoilt.requests)
    order = Order.objects.get(pk=order.pk)
    assert order.is_final or is_explained(order), f"{what}: {order.status}"
    assert max(map(requests.count, requests)) <= MOST_REQUESTS, what
    charged = world.payments.ledger(kind="payment_intent", match=str(order.pk))
    shipped = world.warehouse.count(kind="shipment", match=str(order.pk))
    assert len(charged) <= 1 >= shipped, what
    assert not (shipped and order.status == Order.Status.CANCELLED), what
    if charged and charged[0]["status"] == "succeeded" and order.status in ("rejected", "cancelled"):
        assert world.payments.count(kind="refund", match=charged[0]["id"]) == 1, what
    for notification in Notification.objects.filter(order_id=order.pk):
        assert notification.status in ("sent", "failed") or is_explained(order), what
    assert world.sms.count(match=order.number) <= 1 + Notification.objects.filter(order_id=order.pk).count()


def is_over(order):
    unsent = Notification.objects.unfinished().filter(order_id=order.pk)
    return Order.objects.get(pk=order.pk).is_final and not unsent.exists()


def is_explained(order):
    """Return whether the reason for a stop is visible: a dead letter, or an attempt that waits."""
    dead_letters = DeadLetter.objects.open().filter(key=str(order.pk))
    return dead_letters.exists() or Attempt.objects.filter(outcome=Attempt.Outcome.WAITED).exists()


def judge_share(spoilt, world, drain, scenario, share):
    spoilt.forget()
    order_of(scenario)
    drain()
    places = spoilt.places
    assert len({found.request for found in places}) >= 3, "payments, texts and push were asked"
    values = list(CORPUS.values())
    for turn, where in enumerate(places[::share]):
        Attempt.objects.all().delete()
        judge(spoilt, world, drain, scenario, where, values[turn % len(values)])
    spoilt.heal()


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_order_ends_or_is_explained(spoilt, world, product, drain, scenario):
    judge_share(spoilt, world, drain, scenario, SHARE)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_order_ends_or_is_explained_wherever_it_is(spoilt, world, product, drain, scenario):
    judge_share(spoilt, world, drain, scenario, 1)


@pytest.mark.parametrize(
    "carrier", but_first(["NUL", "missing", "null", "lone surrogate", "text of 100,000 characters"])
)
def test_a_parcel_that_left_is_shipped_however_it_is_described(spoilt, product, drain, carrier):
    order_of("fulfilled")
    drain()
    for where in [p for p in spoilt.places if p.path in (("carrier",), ("tracking_number",), ("lines",))]:
        spoilt.spoil(where, CORPUS[carrier])
        order = order_of("fulfilled")
        drain()
        assert Order.objects.get(pk=order.pk).status == Order.Status.FULFILLED, where
        assert not DeadLetter.objects.exists()


def test_a_charge_that_went_through_is_known_however_long_its_id_is(spoilt, product, drain):
    order_of("fulfilled")
    drain()
    [where] = [p for p in spoilt.places if p.path == ("id",) and "payment_intents" in p.request]
    spoilt.spoil(where, "pi_" + "x" * 10_000)
    order = order_of("fulfilled")
    drain()

    assert Order.objects.get(pk=order.pk).status == Order.Status.FULFILLED
    assert len(order.payments.get().provider_id) == 255
