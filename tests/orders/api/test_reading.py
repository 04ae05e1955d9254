"""Reading one order: its state, its history, and whether it has changed."""

from __future__ import annotations

import uuid

import pytest

from orders import moves, services
from orders.models import Payment
from tests.factories import place
from tests.orders.api.client import (
    ORDERS,
    assert_problem,
    move,
)


def test_an_order_shows_its_state_and_its_history(api, db):
    order = place(client_id=api.client_id)
    move(order, moves.Status.VALIDATED, moves.Status.CHARGED)
    Payment.objects.create(
        order=order, idempotency_key="p", amount_minor=500, currency="GBP", status=Payment.Status.SUCCEEDED
    )
    response = api.get(f"{ORDERS}/{order.number.lower()}")

    shown = response.json()
    assert response.status_code == 200
    assert (shown["id"], shown["status"], shown["reason"]) == (str(order.pk), "charged", "")
    assert [(step["from"], step["to"]) for step in shown["timeline"]] == [
        (None, "placed"),
        ("placed", "validated"),
        ("validated", "charged"),
    ]
    [payment] = shown["payments"]
    assert (payment["status"], payment["amount_minor"], payment["refund"]) == ("succeeded", 500, None)
    assert shown["shipment"] is None
    assert response["Retry-After"] == "1"
    assert "example.com" not in response.content.decode()


def test_a_final_order_shows_the_reason_and_no_time_to_poll_again(api, db):
    order = place(client_id=api.client_id)
    move(order, moves.Status.REJECTED, reason="not in stock: MUG-01")
    response = api.get(f"{ORDERS}/{order.pk}")

    assert response.json()["reason"] == "not in stock: MUG-01"
    assert response.json()["finished_at"]
    assert "Retry-After" not in response


def test_an_unchanged_order_is_not_sent_again(api, db):
    order = place(client_id=api.client_id)
    first = api.get(f"{ORDERS}/{order.pk}")
    unchanged = api.get(f"{ORDERS}/{order.pk}", **{"If-None-Match": f'"other", W/{first["ETag"]}'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged["ETag"] == first["ETag"]
    assert unchanged["Retry-After"] == "1"


@pytest.mark.parametrize(
    "change",
    [
        lambda order: move(order, moves.Status.VALIDATED),
        lambda order: services.request_cancellation(order_id=order.pk, requested_by="customer"),
        lambda order: order.payments.create(idempotency_key="p", amount_minor=1, currency="GBP"),
    ],
)
def test_every_change_changes_the_etag(api, db, change):
    order = place(client_id=api.client_id)
    before = api.get(f"{ORDERS}/{order.pk}")["ETag"]
    change(order)

    assert api.get(f"{ORDERS}/{order.pk}", **{"If-None-Match": before}).status_code == 200


@pytest.mark.parametrize(
    "reference", ["OF-1", str(uuid.UUID(int=0)), "x", "OF-x", "{}", "OF-٣", "OF-" + "9" * 30]
)
def test_an_unknown_order_is_not_found(api, db, reference):
    assert_problem(api.get(f"{ORDERS}/{reference}"), 404, "not-found")
    assert_problem(api.post(f"{ORDERS}/{reference}/cancel"), 404, "not-found")
