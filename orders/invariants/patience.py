"""What the invariants of orders have in common: which orders count, how late is late, and what to type."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

from celery import current_app
from kombu.exceptions import OperationalError as BrokerError

from orders.sweep import LONGEST_PAUSE
from orders.tasks import SECONDS_PER_WAITING_TASK
from orders.transitions import LEASE, STEP_DEADLINE
from outbox import broker

TRACE = "python manage.py order_trace {id}"

READ = "docs/operations.md, “Reading a failed verdict”"
"""Where no command helps."""

RECENT = "(o.finished_at IS NULL OR o.finished_at >= %(since)s)"
"""Orders that may have changed since."""


def patience() -> dict[str, Any]:
    """
    How late an order, or the refund of a stranded charge, may be before somebody has to look.

    The sweep's longest pause and a step, and what the queue needs.
    """
    return {"patience": LONGEST_PAUSE + STEP_DEADLINE + LEASE + queued()}


def queued() -> dt.timedelta:
    """
    What the length of the queue explains, as the sweep sees it.

    A broker that does not answer explains no delay: then nothing moves.
    """
    waiting = 0
    with contextlib.suppress(*_broker_errors()):
        waiting = broker.waiting("orders")
    return dt.timedelta(seconds=waiting * SECONDS_PER_WAITING_TASK)


def _broker_errors() -> tuple[type[BaseException], ...]:
    with current_app.connection_for_read() as link:
        return (BrokerError, OSError, *link.connection_errors, *link.channel_errors)
