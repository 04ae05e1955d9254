"""Amounts in the payment provider's units, and amounts that it does not charge, refused on input."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command
from hypothesis import assume, given
from hypothesis import strategies as st

from notifications.money import format_amount
from orders import services
from orders.adapters import stripe_amounts
from orders.contracts import currencies
from orders.imports import importer, invoices
from orders.models import Order, Product
from outbox.models import DeadLetter
from tests.factories import ProductFactory, place
from tests.slow import but_first

CHARGED = [
    ("ISK", 500, 50_000), ("UGX", 5_000, 500_000), ("MGA", 50_000, 500), ("KWD", 12_340, 12_340),
    ("JPY", 500, 500), ("GBP", 500, 500), ("HUF", 17_505, 17_505), ("XAF", 5_000, 5_000), ("CLP", 900, 900),
    ("TWD", 1_005, 1_005), ("ZAR", 50, 50), ("KRW", 50, 50),
]  # fmt: skip
REFUSED = [
    ("GBP", 29), ("USD", 49), ("JPY", 49), ("HUF", 17_499), ("KWD", 12_345), ("MGA", 50_050), ("IRR", 500_000),
    ("ZAR", 49), ("KRW", 49), ("BGN", 500),
    ("XYZ", 500), ("IQD", 5_000), ("CLF", 50_000),
]  # fmt: skip


@pytest.mark.parametrize(("currency", "minor", "wanted"), but_first(CHARGED, first=3))
def test_the_ordered_amount_is_charged_and_refunded(world, drain, currency, minor, wanted):
    order = place(ProductFactory(currency=currency, price_minor=minor), quantity=1, currency=currency)
    with world.warehouse.failing(fault="error", status=503):
        drain()
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    drain(redeliveries=True)

    assert [intent["amount"] for intent in world.payments.ledger(kind="payment_intent")] == [wanted]
    assert [refund["amount"] for refund in world.payments.ledger(kind="refund")] == [wanted]
    assert Order.objects.get().status == Order.Status.CANCELLED
    assert order.total_minor == minor


@pytest.mark.parametrize(("currency", "minor"), REFUSED)
def test_an_amount_that_is_not_charged_is_rejected_before_stock_is_reserved(world, drain, currency, minor):
    order = place(ProductFactory(currency=currency, price_minor=minor), quantity=1, currency=currency)
    drain()

    order.refresh_from_db()
    assert order.status == Order.Status.REJECTED
    assert list(order.transitions.order_by("id").values_list("to_status", flat=True)) == ["placed", "rejected"]
    assert Product.objects.get().reserved == 0
    assert world.payments.count() == 0
    assert not DeadLetter.objects.exists()


def test_an_amount_refused_only_by_the_provider_rejects_the_order(world, drain, settings):
    settings.LARGEST_ORDER_MINOR = 10**12
    order = place(ProductFactory(price_minor=100_000_000), quantity=1)
    drain()

    order.refresh_from_db()
    assert order.status == Order.Status.REJECTED
    assert "no more than" in order.reason
    assert Product.objects.get().reserved == 0
    assert not DeadLetter.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("currency", "minor"), REFUSED)
def test_the_command_refuses_an_unchargeable_total(currency, minor):
    ProductFactory(sku="CHEAP", currency=currency, price_minor=minor)

    with pytest.raises(CommandError, match=r"paid|payments in"):
        call_command("place_order", "--sku", "CHEAP")
    assert not Order.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_import_rejects_the_invoices_that_cannot_be_charged_and_no_other(tmp_path):
    file = tmp_path / "invoices.csv"
    lines = [",".join(invoices.COLUMNS)]
    for number, quantity, price in ((1, 1, "0.29"), (2, 1, "0.30"), (3, 2, "0.29")):
        lines.append(f"{number},85123A,HEART,{quantity},2010-12-01 08:26:00,{price},17850,United Kingdom")
    file.write_text("\n".join(lines))
    *_, report = importer.run(file, importer.Options())

    assert (report.lines_read, report.orders_placed) == (3, 2)
    assert report.rejected == {"total cannot be charged": 1}
    assert set(Order.objects.values_list("client_reference", flat=True)) == {"2", "3"}


EVERY_CURRENCY = sorted(
    stripe_amounts.CURRENCIES
    | currencies.NO_DECIMALS
    | currencies.THREE_DECIMALS
    | currencies.FOUR_DECIMALS
    | {"", "gbp", "£££"}
)


@given(st.sampled_from(EVERY_CURRENCY), st.integers(-(10**6), 10**12))
def test_an_amount_is_refused_or_comes_back_from_the_providers_units_as_it_was(currency, minor):
    if refusal := stripe_amounts.refusal_of(minor, currency):
        assert refusal.strip()
        return
    there = stripe_amounts.to_stripe(minor, currency)

    assert there > 0
    assert stripe_amounts.from_stripe(there, currency.lower()) == minor
    assert format_amount(stripe_amounts.from_stripe(there, currency), currency) == format_amount(
        minor, currency
    )


@given(st.sampled_from(sorted(stripe_amounts.CURRENCIES)), st.integers(1, 10**12))
def test_units_are_those_that_stripe_documents(currency, minor):
    assume(not stripe_amounts.refusal_of(minor, currency))
    there = stripe_amounts.to_stripe(minor, currency)

    decimals = {"ISK": 2, "UGX": 2, "MGA": 0}.get(currency, currencies.decimals_of(currency))
    assert there * 10 ** currencies.decimals_of(currency) == minor * 10**decimals
    assert (
        there % {"ISK": 100, "UGX": 100, "KWD": 10, "BHD": 10, "OMR": 10, "JOD": 10, "TND": 10}.get(currency, 1)
        == 0
    )
