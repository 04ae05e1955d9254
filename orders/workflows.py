"""
The workflows of orders: a message in, a Celery canvas out. Only the relay starts them.
"""

from __future__ import annotations

from celery.canvas import Signature

from orders import tasks
from orders.contracts import CancellationRequested, ChargeStranded, FulfillmentFailed, OrderEvent, OrderPlaced
from outbox.broker.canvas import steps
from outbox.contracts import Message


def fulfillment(message: Message) -> Signature:
    return steps(tasks.validate, tasks.charge, tasks.fulfill, **_step(message))


def cancellation(message: Message) -> Signature:
    return steps(tasks.cancel, tasks.refund, **_step(message))


def compensation(message: Message) -> Signature:
    return steps(tasks.refund, **_step(message))


def stranded_charge(message: Message) -> Signature:
    return steps(tasks.refund_stranded, **_step(message))


def _step(message: Message) -> dict[str, str]:
    event = message.event
    assert isinstance(event, OrderEvent)
    return {"message_id": str(message.id), "order_id": event.order_id}


SUBSCRIPTIONS = [
    (OrderPlaced, fulfillment),
    (CancellationRequested, cancellation),
    (FulfillmentFailed, compensation),
    (ChargeStranded, stranded_charge),
]
