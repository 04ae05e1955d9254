"""Cancelling over HTTP: requested once, and too late for orders that have ended."""

from __future__ import annotations

from orders import moves
from outbox.models import OutboxMessage
from tests.factories import place
from tests.orders.api.client import (
    ORDERS,
    assert_problem,
    move,
)


def test_repeated_cancellations_are_requested_once(api, db):
    order = place(client_id=api.client_id)
    first = api.post(f"{ORDERS}/{order.number}/cancel")
    again = api.post(f"{ORDERS}/{order.pk}/cancel")

    assert first.status_code == again.status_code == 202
    assert first.content == again.content
    assert first["Location"] == f"{ORDERS}/{order.pk}"
    assert first.json()["cancel_requested_at"]
    message = OutboxMessage.objects.get(key=order.pk, event_name="orders.cancellation_requested")
    assert message.payload["requested_by"] == f"api:{api.token.name}"


def test_an_order_that_has_ended_cannot_be_cancelled(api, db):
    order = place(client_id=api.client_id)
    move(order, moves.Status.REJECTED)

    problem = assert_problem(api.post(f"{ORDERS}/{order.pk}/cancel"), 409, "not-cancellable")
    assert "rejected" in problem["detail"]
