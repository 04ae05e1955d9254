"""
The events that orders publishes; the only part of this app that other apps import.

Ids are strings, money is integer minor units with its ISO 4217 currency, times are ISO strings. A published
version never changes; a new one increments `version` and adds an upcaster.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, Self

from outbox.contracts import Event


class Described(Protocol):
    """The fields of an order that its events contain."""

    pk: Any
    number: Any
    customer_name: Any
    customer_email: Any
    customer_phone: Any
    customer_push_token: Any
    total_minor: Any
    currency: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderEvent(Event):
    """
    The fields of every event of an order: its id, the customer's contact, and the amount.

    The contact stays in the database: tasks get the message's id and read it from there. Addresses that the
    customer did not give are empty.
    """

    key_field = "order_id"

    order_id: str
    order_number: str
    customer_name: str
    customer_email: str
    customer_phone: str
    customer_push_token: str
    total_minor: int
    currency: str

    @classmethod
    def of(cls, order: Described, **own: Any) -> Self:
        """Return the event for an order in its current state, with the fields of this kind of event."""
        return cls(
            order_id=str(order.pk),
            order_number=order.number,
            customer_name=order.customer_name,
            customer_email=order.customer_email,
            customer_phone=order.customer_phone,
            customer_push_token=order.customer_push_token,
            total_minor=order.total_minor,
            currency=order.currency,
            **own,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderPlaced(OrderEvent):
    """A customer placed an order, and the order is durable."""

    name = "orders.order_placed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderRejected(OrderEvent):
    """The order was refused for business reasons; nothing was charged. `reason` is fit for the customer."""

    name = "orders.order_rejected"

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderFulfilled(OrderEvent):
    """The warehouse handed the order over to the carrier."""

    name = "orders.order_fulfilled"

    carrier: str
    tracking_number: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FulfillmentFailed(OrderEvent):
    """The warehouse refused to ship a charged order; compensation follows."""

    name = "orders.fulfillment_failed"

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CancellationRequested(OrderEvent):
    """Somebody requested the cancellation of the order before it was shipped."""

    name = "orders.cancellation_requested"

    requested_by: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderRefunded(OrderEvent):
    """The customer's money was refunded."""

    name = "orders.order_refunded"

    refunded_minor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderCancelled(OrderEvent):
    """The order ended without shipment; its stock is released and no charge is left."""

    name = "orders.order_cancelled"

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChargeStranded(OrderEvent):
    """A charge succeeded for an order that had ended meanwhile; it must be refunded."""

    name = "orders.charge_stranded"


EVENTS = [
    OrderPlaced,
    OrderRejected,
    OrderFulfilled,
    FulfillmentFailed,
    CancellationRequested,
    OrderRefunded,
    OrderCancelled,
    ChargeStranded,
]
