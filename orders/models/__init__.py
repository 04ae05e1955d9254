"""
Products, orders and what happens to them (transitions, payments, refunds, shipments), and clients of the API.

Statuses change only through `orders.services`. The database itself refuses illegal moves, negative stock, a
second captured charge, and any change of the history (see the migrations).
"""

from orders.models.clients import ApiClient, ApiToken, SupersededSecret
from orders.models.orders import (
    IdempotencyRecord,
    Order,
    OrderLine,
    OrderQuerySet,
    OrderTransition,
    Product,
    new_id,
)
from orders.models.payments import Payment, Refund, Shipment

__all__ = [
    "ApiClient",
    "ApiToken",
    "IdempotencyRecord",
    "Order",
    "OrderLine",
    "OrderQuerySet",
    "OrderTransition",
    "Payment",
    "Product",
    "Refund",
    "Shipment",
    "SupersededSecret",
    "new_id",
]
