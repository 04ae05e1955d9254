"""Placing an order over HTTP: what is stored, returned and published."""

from __future__ import annotations

import time

from orders.models import Order
from outbox.models import OutboxMessage
from tests.orders.api.client import (
    ORDERS,
    order_of,
)


def test_a_placed_order_is_stored_with_its_event_and_can_be_found_at_its_location(api, mug):
    response = api.place(order_of())

    assert response.status_code == 201
    placed = response.json()
    order = Order.objects.get(pk=placed["id"])
    assert placed == {
        "id": str(order.pk),
        "number": order.number,
        "status": "placed",
        "currency": "GBP",
        "total_minor": 500,
        "lines": [{"sku": "MUG-01", "name": "Mug", "quantity": 2, "unit_price_minor": 250, "total_minor": 500}],
        "client_reference": "cart-1",
        "placed_at": order.placed_at.isoformat().replace("+00:00", "Z"),
        "links": {"self": f"{ORDERS}/{order.pk}", "cancel": f"{ORDERS}/{order.pk}/cancel"},
    }
    assert response["Location"] == f"{ORDERS}/{order.pk}"
    assert "Idempotent-Replayed" not in response
    assert api.get(response["Location"]).status_code == 200
    assert (order.customer_email, order.customer_phone, order.country) == (
        "ada@example.com",
        "+447700900123",
        "GB",
    )
    assert OutboxMessage.objects.get(key=order.pk).event_name == "orders.order_placed"
    assert order.transitions.get().actor == f"api:{api.token.name}"


def test_the_clients_request_id_goes_with_the_order(api, mug):
    api.post(ORDERS, order_of(), key="k", **{"X-Request-ID": "req-7"})

    assert Order.objects.get().correlation_id == "req-7"


def test_orders_are_accepted_while_the_broker_is_down(api, mug, no_broker):
    began = time.monotonic()
    response = api.place(order_of())

    assert response.status_code == 201
    assert time.monotonic() - began < 1
    assert OutboxMessage.objects.undelivered().count() == 1
