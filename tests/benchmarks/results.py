"""The results of orders in the tables, to compare systems by."""

from __future__ import annotations

from notifications.models import Notification
from orders.models import Order, Product


def outcome():
    """Return the results of the orders, without ids and times."""
    return [
        (
            order.status,
            order.total_minor,
            order.customer_email,
            sorted(order.lines.values_list("product__sku", "quantity", "unit_price_minor")),
            list(order.transitions.order_by("id").values_list("from_status", "to_status")),
            list(order.payments.values_list("status", "amount_minor", "currency")),
            (order.shipment.status, order.shipment.carrier),
            list(
                Notification.objects.filter(order_id=order.pk).values_list(
                    "status", "channel", "recipient", "template"
                )
            ),
        )
        for order in Order.objects.order_by("number")
    ]


def stock():
    """Return the numbers of each product."""
    return list(Product.objects.order_by("sku").values("on_hand", "reserved", "shipped"))
