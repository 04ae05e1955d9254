"""
The events that orders publishes; all that other apps see of this one.

Ids are strings, money is integer minor units with its ISO 4217 currency, times are ISO strings. A
published version never changes; a new one counts `version` up and brings an upcaster.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, Self

from outbox.contracts import Event


class Described(Protocol):
    """An order, as far as its events describe it."""

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
    What every event of an order says: which order, how to reach the customer, and the amount.

    The contact stays in the database: tasks get the message's id and read it from there. A customer
    who gave no address of a kind has an empty one.
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
        """The event of an order as it is now, with what this kind of event says besides."""
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
    """A customer placed an order and the order is durable."""

    name = "orders.order_placed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderRejected(OrderEvent):
    """The business refused the order; nothing was charged. `reason` is fit for the customer."""

    name = "orders.order_rejected"

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderFulfilled(OrderEvent):
    """The warehouse took the order over to the carrier."""

    name = "orders.order_fulfilled"

    carrier: str
    tracking_number: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FulfillmentFailed(OrderEvent):
    """The warehouse refused to ship an order that was charged; compensation follows."""

    name = "orders.fulfillment_failed"

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CancellationRequested(OrderEvent):
    """Somebody asked to cancel the order before it was shipped."""

    name = "orders.cancellation_requested"

    requested_by: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderRefunded(OrderEvent):
    """The customer got the money back."""

    name = "orders.order_refunded"

    refunded_minor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderCancelled(OrderEvent):
    """The order ended without shipment; its stock is free again and nothing is left charged."""

    name = "orders.order_cancelled"

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChargeStranded(OrderEvent):
    """A charge went through for an order that had ended meanwhile; it has to be refunded."""

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
