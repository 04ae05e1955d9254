"""Beat entries: what the clock asks of the outbox. No step of an order is here."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from django.db import connection

from outbox import relay, retention, telemetry

DRAIN_LOCK = 0x0FB0C5
"""Key of the advisory lock that keeps beat's drains from piling up on each other."""


@shared_task(ignore_result=True, acks_late=False)
def drain(**_: Any) -> None:
    """Deliver what is due. The net under the relay's wake-up: does nothing while another drain runs."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [DRAIN_LOCK])
        if not cursor.fetchone()[0]:
            return
        try:
            relay.drain()
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [DRAIN_LOCK])


@shared_task(ignore_result=True, acks_late=False)
def unpark(**_: Any) -> None:
    """Make parked messages due whose event the code has learned to read since."""
    if released := relay.unpark():
        telemetry.emit("message.unparked", messages=released)


@shared_task(ignore_result=False, acks_late=False)
def prune(**_: Any) -> dict[str, int]:
    """Delete what has outlived its retention; the counts are the task's result."""
    return retention.prune()
