"""Orders in the API's responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.urls import reverse

from orders import queries
from orders.dead_letters import attention
from orders.models import Order, OrderLine


def summary(order: Order) -> dict[str, Any]:
    """The order and its lines, in JSON's own types."""
    return placed(order, sorted(order.lines.all(), key=lambda line: line.pk))


def listed(orders: Sequence[Order]) -> list[dict[str, Any]]:
    """The orders of one page."""
    waiting = attention.needed_by(orders)
    return [summary(order) | {"needs_attention": order.pk in waiting} for order in orders]


def placed(order: Order, lines: Sequence[OrderLine]) -> dict[str, Any]:
    """The same for an order that is about to be written; it is also the response to repeated requests."""
    return {
        "id": str(order.pk),
        "number": order.number,
        "status": str(order.status),
        "currency": order.currency,
        "total_minor": order.total_minor,
        "lines": [
            {
                "sku": line.product.sku,
                "name": line.product.name,
                "quantity": line.quantity,
                "unit_price_minor": line.unit_price_minor,
                "total_minor": line.total_minor,
            }
            for line in lines
        ],
        "client_reference": order.client_reference,
        "placed_at": order.placed_at.isoformat(),
        "links": links(order),
    }


def detail(order: Order) -> dict[str, Any]:
    """Everything that the API shows of the order."""
    shipment = getattr(order, "shipment", None)
    return summary(order) | {
        "reason": order.reason,
        "cancel_requested_at": order.cancel_requested_at,
        "finished_at": order.finished_at,
        "payments": [_payment(payment) for payment in queries.payments(order)],
        "shipment": shipment
        and {
            "status": shipment.status,
            "carrier": shipment.carrier,
            "tracking_number": shipment.tracking_number,
        },
        "timeline": [
            {"from": move.from_status or None, "to": move.to_status, "at": move.at, "note": move.note}
            for move in queries.timeline(order)
        ],
        "needs_attention": attention.is_needed(order),
    }


def cancellation(order: Order) -> dict[str, Any]:
    """The response to a request for cancellation."""
    return {
        "id": order.pk,
        "number": order.number,
        "status": order.status,
        "cancel_requested_at": order.cancel_requested_at,
        "links": links(order),
    }


def address(order: Order) -> str:
    """The URL of the order."""
    return reverse("api-v1:get_order", kwargs={"order_id": str(order.pk)})


def links(order: Order) -> dict[str, str]:
    """Links from the order."""
    return {
        "self": address(order),
        "cancel": reverse("api-v1:cancel_order", kwargs={"order_id": str(order.pk)}),
    }


def _payment(payment: Any) -> dict[str, Any]:
    refund = getattr(payment, "refund", None)
    return {
        "status": payment.status,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "decline_code": payment.decline_code,
        "requested_at": payment.requested_at,
        "resolved_at": payment.resolved_at,
        "refund": refund and {"status": refund.status, "amount_minor": refund.amount_minor},
    }
