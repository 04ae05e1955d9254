"""
Which work follows which fact. Pure: a message in, a Celery canvas out; nobody starts one but the relay.
"""

from __future__ import annotations

from celery import chain
from celery.canvas import Signature

from orders import tasks
from orders.contracts import CancellationRequested, ChargeStranded, FulfillmentFailed, OrderEvent, OrderPlaced
from outbox.contracts import Message


def fulfillment(message: Message) -> Signature:
    step = _step(message)
    return chain(tasks.validate.si(**step), tasks.charge.si(**step), tasks.fulfill.si(**step))


def cancellation(message: Message) -> Signature:
    step = _step(message)
    return chain(tasks.cancel.si(**step), tasks.refund.si(**step))


def compensation(message: Message) -> Signature:
    return tasks.refund.si(**_step(message))


def stranded_charge(message: Message) -> Signature:
    return tasks.refund_stranded.si(**_step(message))


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
