"""Invalid orders are refused with pointers to the errors, and not stored."""

from __future__ import annotations

import pytest

from orders.models import Order
from tests.factories import ProductFactory
from tests.orders.api.client import (
    assert_problem,
    order_of,
    pointers,
)


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"items": []}, "/items"),
        ({"items": ...}, "/items"),
        ({"items": [{"sku": "MUG-01", "quantity": 1}] * 501}, "/items"),
        ({"items": [{"sku": "MUG-01", "quantity": 0}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG-01", "quantity": 1_000_001}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG-01", "quantity": "2"}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG-01", "quantity": True}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG-01", "quantity": 1e300}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG-01", "quantity": 1.5}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG\x00", "quantity": 1}]}, "/items/0/sku"),
        ({"items": [{"sku": "\ud800", "quantity": 1}]}, "/items/0/sku"),
        ({"items": [{"sku": "MUG-01", "quantity": 1, "price": 1}]}, "/items/0/price"),
        ({"currency": "gbp"}, "/currency"),
        ({"payment_method": ...}, "/payment_method"),
        ({"payment_method": "pm card"}, "/payment_method"),
        ({"customer": {"name": "Ada\nBcc: all"}}, "/customer/name"),
        ({"customer": {"email": "nobody"}}, "/customer/email"),
        ({"customer": {"phone": "0770 900123"}}, "/customer/phone"),
        ({"customer": {"push_token": "a b"}}, "/customer/push_token"),
        ({"customer": {"e-mail/~": "x"}}, "/customer/e-mail~1~0"),
        ({"customer": None}, "/customer"),
        ({"country": "United Kingdom"}, "/country"),
        ({"country": ...}, "/country"),
        ({"country": None}, "/country"),
        ({"country": ""}, "/country"),
        ({"country": "gb"}, "/country"),
        ({"client_reference": "\x00"}, "/client_reference"),
        ({"client_reference": "x" * 101}, "/client_reference"),
        ({"discount": 5}, "/discount"),
        ({"\ud800": 5}, ""),
    ],
)
def test_invalid_fields_are_pointed_at_and_not_stored(api, mug, changed, pointer):
    problem = assert_problem(api.place(order_of(**changed)), 422, "validation-failed")

    assert pointers(problem) == [pointer]
    assert not Order.objects.exists()


def test_a_whole_number_may_be_written_with_a_point(api, mug):
    placed = api.place(order_of(items=[{"sku": "MUG-01", "quantity": 2.0}]))

    assert placed.json()["lines"][0]["quantity"] == 2


def test_all_mistakes_are_pointed_at_together(api, mug):
    problem = assert_problem(api.place(order_of(currency="x", country="x")), 422, "validation-failed")

    assert pointers(problem) == ["/country", "/currency"]


@pytest.mark.parametrize(
    "number", ["4242424242424242", "4242 4242 4242 4242", "3782-822463-10005", "pm_4242424242424242"]
)
def test_card_numbers_are_refused_and_not_repeated(api, mug, number):
    response = api.place(order_of(payment_method=number))

    problem = assert_problem(response, 422, "card-number")
    assert pointers(problem) == ["/payment_method"]
    assert number not in response.content.decode()


def test_unknown_products_are_pointed_at_and_the_key_stays_free(api, mug):
    problem = assert_problem(api.place(order_of("MUG-01", "NONE"), key="once"), 422, "unknown-product")
    assert pointers(problem) == ["/items/1/sku"]

    assert api.place(order_of(), key="once").status_code == 201


def test_products_in_another_currency_are_refused(api, mug):
    assert_problem(api.place(order_of(currency="EUR")), 422, "mixed-currencies")


def test_a_total_beyond_what_can_be_stored_is_refused(api, db):
    ProductFactory(sku="MUG-01", price_minor=2**62)

    assert_problem(api.place(order_of()), 422, "total-too-large")
    assert not Order.objects.exists()


@pytest.mark.parametrize(
    ("price", "currency"), [(29, "GBP"), (0, "GBP"), (49, "JPY"), (12_345, "KWD"), (100, "IRR")]
)
def test_an_unchargeable_total_is_refused_and_the_key_stays_free(api, price, currency):
    product = ProductFactory(price_minor=price, currency=currency)
    order = order_of(items=[{"sku": product.sku, "quantity": 1}], currency=currency)
    problem = assert_problem(api.place(order, key="one-key"), 422, "not-chargeable")

    assert currency in problem["detail"] or problem["detail"] == "there is nothing to pay"
    assert not Order.objects.exists()
    product.price_minor = 5_000_000 if currency != "IRR" else price
    product.save()
    assert api.place(order, key="one-key").status_code == (201 if currency != "IRR" else 422)
