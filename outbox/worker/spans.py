"""
The wait of a quick try as a span, not as a time.

Celery says in a message's ETA until when the worker that takes it is to wait, by the clock of the worker that
sent it. An hour between the two makes each quick try an hour late, or immediate. So the sender says in a header
how long the wait is, and the receiver counts it from now, by its own clock. On RabbitMQ the broker has waited.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from celery import signals
from kombu.transport.native_delayed_delivery import CELERY_DELAYED_DELIVERY_EXCHANGE

HEADER = "wait_seconds"


@signals.before_task_publish.connect
def say_span(headers: dict[str, Any], **_: Any) -> None:
    """Add the span to a message that has an ETA."""
    if eta := headers.get("eta"):
        left = dt.datetime.fromisoformat(eta) - dt.datetime.now(dt.UTC)
        headers[HEADER] = max(0.0, round(left.total_seconds(), 3))


def eta_of(message: Any, eta: dt.datetime) -> dt.datetime | None:
    """Until when to wait by this process's clock; None: not at all. Messages of older code have their ETA."""
    span = message.headers.get(HEADER)
    if not isinstance(span, int | float):
        return eta
    if message.delivery_info.get("exchange") == CELERY_DELAYED_DELIVERY_EXCHANGE:
        return None
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=span)
