"""The providers' own records are compared with our books, in both directions."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
import requests
import stripe
from django.conf import settings

from orders import adapters, compensation
from orders.models import Payment, Shipment
from orders.reconciliation import comparison
from outbox.models import OutboxMessage
from outbox.verification import catalogue, examination

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Treat new records as if they were older."""
    monkeypatch.setattr(comparison, "IN_FLIGHT", dt.timedelta())


def charge(key, **changed):
    """Charge at the provider without a record of ours."""
    client = stripe.StripeClient("sk_test_other", base_addresses={"api": settings.STRIPE_API_BASE})
    return client.v1.payment_intents.create(
        {
            "amount": 500,
            "currency": "gbp",
            "payment_method": "pm_card_visa",
            "payment_method_types": ["card"],
            "confirm": True,
            "metadata": {"key": key},
        }
        | changed
    )


def forget_charge(books, ledger):
    paid = Payment.objects.get(order=books.plain).provider_id
    ledger("payments").execute("DELETE FROM entries WHERE id = ?", [paid])


def lower_charge(books, ledger):
    paid = Payment.objects.get(order=books.plain).provider_id
    ledger("payments").execute(
        "UPDATE entries SET document = json_set(document, '$.amount_received', 1) WHERE id = ?", [paid]
    )


def charge_twice(books, ledger):
    ledger("payments")
    charge(f"order-{books.plain.pk}-charge")


def charge_unknown_order(books, ledger):
    ledger("payments")
    charge(f"order-{uuid.uuid4()}-charge")


def charge_rejected_order(books, ledger):
    ledger("payments")
    charge(f"order-{books.rejected.pk}-charge")


def forget_refund(books, ledger):
    ledger("payments").execute("DELETE FROM entries WHERE kind = 'refund'")


def refund_unknown_order(books, ledger):
    ledger("payments")
    client = stripe.StripeClient("sk_test_other", base_addresses={"api": settings.STRIPE_API_BASE})
    paid = charge("somebody else's")
    client.v1.refunds.create({"payment_intent": paid.id, "metadata": {"key": f"order-{uuid.uuid4()}-refund"}})


def forget_shipment(books, ledger):
    sent = Shipment.objects.get(order=books.plain).provider_id
    ledger("warehouse").execute("DELETE FROM entries WHERE id = ?", [sent])


def ship_rejected_order(books, ledger):
    ledger("warehouse")
    requests.post(
        f"{settings.WAREHOUSE_URL}/shipments",
        json={
            "order_id": str(books.rejected.pk),
            "order_number": books.rejected.number,
            "country": "GB",
            "lines": [{"sku": "A", "quantity": 1}],
        },
        headers={"Authorization": "Bearer token", "Idempotency-Key": f"order-{books.rejected.pk}-shipment"},
        timeout=5,
    ).raise_for_status()


def forget_sms(books, ledger):
    ledger("sms").execute("DELETE FROM entries WHERE kind = 'sms'")


def forget_email(books, ledger):
    ledger("smtp").execute("DELETE FROM entries WHERE kind = 'email'")


def forget_push(books, ledger):
    ledger("push").execute("DELETE FROM entries WHERE kind = 'push'")


CORRUPTIONS = [
    ("our-charges-are-at-the-provider", forget_charge),
    ("our-charges-are-at-the-provider", lower_charge),
    ("the-provider-charged-once", charge_twice),
    ("their-charges-are-in-our-books", charge_unknown_order),
    ("no-charge-is-stranded", charge_rejected_order),
    ("our-refunds-are-at-the-provider", forget_refund),
    ("their-refunds-are-in-our-books", refund_unknown_order),
    ("our-shipments-are-at-the-warehouse", forget_shipment),
    ("their-shipments-are-in-our-books", ship_rejected_order),
    ("sms-is-at-the-provider", forget_sms),
    ("email-is-at-the-provider", forget_email),
    ("push-is-at-the-provider", forget_push),
]


def verdicts(report):
    return {finding.invariant.name: str(finding.verdict) for finding in report.findings}


def test_books_that_agree_with_the_providers_pass(books):
    report = examination.run(providers=True)

    assert report.failed == []
    assert set(verdicts(report).values()) == {"ok"}


def test_providers_that_keep_no_list_cannot_be_compared(books, settings):
    settings.SANDBOX_URL = ""
    report = examination.run(providers=True)

    assert report.passed
    notes = {name for name, verdict in verdicts(report).items() if verdict == "not comparable"}
    assert notes == {"email-is-at-the-provider", "push-is-at-the-provider"}


def test_every_comparison_has_a_corruption():
    compared = {invariant.name for invariant in catalogue.invariants() if invariant.needs_providers}
    assert {name for name, _ in CORRUPTIONS} == compared


@pytest.mark.parametrize(("name", "corrupt"), CORRUPTIONS, ids=[corrupt.__name__ for _, corrupt in CORRUPTIONS])
def test_each_corruption_fails_exactly_its_comparison(books, ledger, name, corrupt):
    corrupt(books, ledger)

    assert examination.run(providers=True).failed == [name]


def test_providers_are_not_called_by_default(books, running_world):
    before = len(running_world.payments.calls())
    examination.run()

    assert len(running_world.payments.calls()) == before


def test_a_provider_that_does_not_answer_is_no_pass(books, running_world):
    with running_world.warehouse.failing(fault="error", status=503):
        report = examination.run(providers=True)

    found = verdicts(report)
    assert {name for name, verdict in found.items() if verdict == "unanswered"} == {
        "our-shipments-are-at-the-warehouse",
        "their-shipments-are-in-our-books",
    }
    assert not report.passed


@pytest.mark.parametrize("key", ["", "another shop's", "order-1-charge"])
def test_records_without_a_key_of_ours_are_ignored(books, ledger, key):
    ledger("payments")
    charge(key)

    assert examination.run(providers=True).passed


def test_a_charge_that_may_be_on_its_way_into_the_books_is_left_alone(books, ledger, monkeypatch):
    monkeypatch.setattr(comparison, "IN_FLIGHT", dt.timedelta(minutes=5))
    charge_unknown_order(books, ledger)

    assert examination.run(providers=True).passed


def test_an_outcome_that_is_still_open_is_no_stranded_charge(books, ledger):
    ledger("payments")
    Payment.objects.create(
        order=books.waiting,
        idempotency_key=f"order-{books.waiting.pk}-charge",
        amount_minor=500,
        currency="GBP",
        status=Payment.Status.UNKNOWN,
    )
    charge(f"order-{books.waiting.pk}-charge")

    assert examination.run(providers=True).passed


def test_a_stranded_charge_is_written_down_and_refunded_by_a_repair(books, ledger):
    charge_rejected_order(books, ledger)
    report = examination.run(providers=True)
    [would] = examination.repair(report)
    assert "refunds it" in would.what
    assert not OutboxMessage.objects.filter(event_name="orders.charge_stranded").exists()

    examination.repair(report, by="cli:ada", reason="its worker died", apply=True)
    compensation.refund_stranded(order_id=str(books.rejected.pk), gateway=adapters.payment_gateway())

    payment = Payment.objects.get(order=books.rejected)
    assert (payment.status, payment.refund.status) == ("succeeded", "succeeded")
    assert OutboxMessage.objects.filter(event_name="orders.charge_stranded", status="pending").exists()
    assert examination.run(providers=True).passed


@pytest.mark.parametrize("made", [charge_unknown_order, refund_unknown_order])
def test_records_from_the_second_of_since_are_compared(books, ledger, made):
    made(books, ledger)
    record = max(record.made_at for record in records())
    assert record.microsecond == 0

    assert examination.run(since=record + dt.timedelta(seconds=0.9), providers=True).failed
    assert not examination.run(since=record + dt.timedelta(seconds=1), providers=True).failed


def records():
    gateway = adapters.payment_gateway()
    return [*gateway.charges(since=None), *gateway.refunds(since=None)]
