"""
Which news follows which fact. Pure: a message in, a Celery canvas out; nobody starts one but the relay.

The channels are independent tasks: one that fails holds up neither the others nor the order.
"""

from __future__ import annotations

from celery import group
from celery.canvas import Signature

from notifications import services, tasks
from notifications.models import Channel
from orders.contracts import (
    OrderCancelled,
    OrderEvent,
    OrderFulfilled,
    OrderPlaced,
    OrderRefunded,
    OrderRejected,
)
from outbox.contracts import Message

TASKS = {
    Channel.EMAIL: tasks.send_email,
    Channel.SMS: tasks.send_sms,
    Channel.PUSH: tasks.send_push,
}


def news(message: Message) -> Signature | None:
    """Tell the customer through every channel they gave an address for."""
    event = message.event
    assert isinstance(event, OrderEvent)
    step = {"message_id": str(message.id), "order_id": event.order_id}
    sends = [task.si(**step) for channel, task in TASKS.items() if services.address_of(event, channel)]
    return group(sends) if sends else None


SUBSCRIPTIONS = [
    (OrderPlaced, news),
    (OrderRejected, news),
    (OrderFulfilled, news),
    (OrderCancelled, news),
    (OrderRefunded, news),
]
