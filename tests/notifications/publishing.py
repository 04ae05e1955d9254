"""Events that notify customers, published as orders would."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

from django.db import transaction

from orders.contracts import OrderEvent, OrderFulfilled
from outbox import publisher

_numbers = itertools.count(1)


FIELDS = {OrderFulfilled: {"carrier": "Royal Mail", "tracking_number": "RM123"}}
"""A shipment is the default: no other workflow follows it."""


def event(kind: type[OrderEvent] = OrderFulfilled, **changed: Any) -> OrderEvent:
    return kind(
        **{
            "order_id": str(uuid.uuid4()),
            "order_number": f"OF-N{next(_numbers)}",
            "customer_name": "Ada Example",
            "customer_email": "ada@example.com",
            "customer_phone": "+447700900123",
            "customer_push_token": "device-ada",
            "total_minor": 123_450,
            "currency": "GBP",
        }
        | FIELDS.get(kind, {})
        | changed
    )


def publish(kind: type[OrderEvent] = OrderFulfilled, **changed: Any) -> uuid.UUID:
    with transaction.atomic():
        return publisher.publish(event(kind, **changed))


ONLY_EMAIL = {"customer_phone": "", "customer_push_token": ""}
ONLY_SMS = {"customer_email": "", "customer_push_token": ""}
ONLY_PUSH = {"customer_email": "", "customer_phone": ""}
