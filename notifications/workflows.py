"""
The workflows that notify customers. Each takes a message and returns a canvas; only the relay starts them.

Customers are notified of the events for which `rendering` has texts. Each channel is a separate workflow, so
one that waits, fails or is replayed does not affect the others.
"""

from __future__ import annotations

from typing import Any

from celery.canvas import Signature

from notifications import rendering, services, tasks
from notifications.models import Channel
from orders.contracts import OrderEvent
from outbox.broker.canvas import steps
from outbox.contracts import Message


def by_email(message: Message) -> Signature | None:
    return _send(tasks.send_email, message, Channel.EMAIL)


def by_sms(message: Message) -> Signature | None:
    return _send(tasks.send_sms, message, Channel.SMS)


def by_push(message: Message) -> Signature | None:
    return _send(tasks.send_push, message, Channel.PUSH)


def _send(task: Any, message: Message, channel: Channel) -> Signature | None:
    """Return the canvas that notifies the customer, or None without an address for the channel."""
    event = message.event
    assert isinstance(event, OrderEvent)
    if not services.address_of(event, channel):
        return None
    return steps(task, message_id=str(message.id), order_id=event.order_id)


SUBSCRIPTIONS = [
    (event, by_channel) for event in rendering.TEMPLATES for by_channel in (by_email, by_sms, by_push)
]
