"""
The wait of a quick try as a duration instead of a time.

Celery puts the end of the wait into the message's ETA, by the clock of the sender. If the clocks of sender and
receiver differ by an hour, each quick try is an hour late, or immediate. So the sender also puts the duration
into a header, and the receiver applies it to its own clock. On RabbitMQ the broker has already waited.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from celery import signals
from kombu.transport.native_delayed_delivery import CELERY_DELAYED_DELIVERY_EXCHANGE

HEADER = "wait_seconds"


@signals.before_task_publish.connect
def add_wait(headers: dict[str, Any], **_: Any) -> None:
    """Add the duration of the wait to a message that has an ETA."""
    if eta := headers.get("eta"):
        left = dt.datetime.fromisoformat(eta) - dt.datetime.now(dt.UTC)
        headers[HEADER] = max(0.0, round(left.total_seconds(), 3))


def eta_of(message: Any, eta: dt.datetime) -> dt.datetime | None:
    """Return the end of the wait by this process's clock, or None. Messages of older code keep their ETA."""
    span = message.headers.get(HEADER)
    if not isinstance(span, int | float):
        return eta
    if message.delivery_info.get("exchange") == CELERY_DELAYED_DELIVERY_EXCHANGE:
        return None
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=span)
