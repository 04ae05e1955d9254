"""The adapters list the providers' records, page by page."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone

from notifications import channels
from notifications.channels import sms
from notifications.models import Notification
from orders import adapters
from orders.adapters import http_warehouse, stripe
from outbox.resilience import Transient

pytestmark = pytest.mark.usefixtures("world")

LONG_AGO = timezone.now() - dt.timedelta(hours=1)
NEVER = timezone.now() + dt.timedelta(days=30)
ADA = "+447700900001"


def charge(number, **changed):
    return adapters.payment_gateway().charge(
        **{
            "amount_minor": 500 + number,
            "currency": "GBP",
            "payment_method": "pm_card_visa",
            "order_id": f"order {number}",
            "idempotency_key": f"key-{number}",
        }
        | changed
    )


def test_charges_are_listed_with_their_key_and_order_newest_first(monkeypatch):
    monkeypatch.setattr(stripe, "PAGE", 2)
    made = [charge(number) for number in range(5)]
    listed = list(adapters.payment_gateway().charges(since=LONG_AGO))

    assert [one.id for one in listed] == [one.id for one in reversed(made)]
    first = listed[-1]
    assert (first.idempotency_key, first.order_id, first.amount_minor) == ("key-0", "order 0", 500)
    assert (first.currency, first.succeeded) == ("GBP", True)
    assert abs(first.made_at - timezone.now()) < dt.timedelta(minutes=1)
    assert list(adapters.payment_gateway().charges(since=NEVER)) == []


def test_a_declined_charge_is_listed_and_found_with_its_reason():
    with pytest.raises(Exception, match="declined"):
        charge(1, payment_method="pm_card_visa_chargeDeclined")

    [listed] = adapters.payment_gateway().charges(since=None)
    found = adapters.payment_gateway().look_up(idempotency_key="key-1")
    assert (listed.succeeded, listed.decline_code) == (False, "generic_decline")
    assert (found.succeeded, found.decline_code, bool(found.message)) == (False, "generic_decline", True)


def test_refunds_are_listed_with_the_charge_they_give_back():
    paid = charge(1)
    made = adapters.payment_gateway().refund(
        charge_id=paid.id, amount_minor=501, currency="GBP", idempotency_key="back"
    )
    [listed] = adapters.payment_gateway().refunds(since=LONG_AGO)

    assert (listed.id, listed.charge_id, listed.amount_minor) == (made.id, paid.id, 501)
    assert (listed.currency, listed.idempotency_key) == ("GBP", "back")


def test_shipments_are_listed_page_by_page(monkeypatch):
    monkeypatch.setattr(http_warehouse, "PAGE", 2)
    made = [
        adapters.warehouse().ship(
            order_id=f"order {number}",
            order_number="OF-1",
            country="GB",
            lines=[("A", 1)],
            idempotency_key=f"key-{number}",
        )
        for number in range(5)
    ]
    listed = list(adapters.warehouse().shipments(since=LONG_AGO))

    assert [one.id for one in listed] == [one.id for one in made]
    assert (listed[0].idempotency_key, listed[0].order_id) == ("key-0", "order 0")
    assert list(adapters.warehouse().shipments(since=NEVER)) == []


def test_text_messages_are_listed_page_by_page(monkeypatch, world):
    monkeypatch.setattr(sms, "PAGE", 2)
    channel = channels.get("sms")
    for number in range(5):
        channel._client.messages.create(to=f"+44770090000{number}", from_="+15005550006", body="x")

    assert sorted(channel.sent(since=None)) == sorted(entry["sid"] for entry in world.sms.ledger(kind="sms"))
    assert len(list(channel.sent(since=LONG_AGO))) == 5
    assert list(channel.sent(since=NEVER)) == []


def test_a_text_message_is_looked_for_page_by_page_as_far_back_as_it_may_have_been_sent(monkeypatch, world):
    monkeypatch.setattr(sms, "RECIPIENTS_PAGE", 2)
    channel = channels.get("sms")
    wanted, others = (Notification(recipient=ADA, text=text) for text in ("Order OF-1 is here.", "Order OF-2"))
    sent = channel.send(wanted)
    for _ in range(5):
        channel.send(others)
    calls = len(world.sms.calls())

    assert channel.find(wanted, since=LONG_AGO) == [sent]
    assert len(world.sms.calls()) == calls + 3
    assert channel.find(wanted, since=NEVER) == []
    assert len(world.sms.calls()) == calls + 4


def test_a_provider_that_fails_in_the_middle_of_a_list_is_no_short_list(monkeypatch, world):
    monkeypatch.setattr(stripe, "PAGE", 2)
    for number in range(3):
        charge(number)
    listing = adapters.payment_gateway().charges(since=None)
    next(listing)
    with world.payments.failing(fault="error", status=500), pytest.raises(Transient):
        list(listing)
