"""Beat entries: what the clock asks of the outbox. No step of an order is here."""

from __future__ import annotations

import datetime as dt
from typing import Any

from celery import shared_task
from django.db import connection
from django.utils import timezone

from outbox import relay, retention, telemetry, verification

VERIFY_SOFT_LIMIT, VERIFY_LIMIT = 120, 130
"""Seconds. A verification bounds itself below that (`verification.RUN_WITHIN`); it holds no lease, and it is
acknowledged before it runs, so the other tasks' limits do not concern it."""

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


@shared_task(ignore_result=False, acks_late=False, soft_time_limit=VERIFY_SOFT_LIMIT, time_limit=VERIFY_LIMIT)
def verify(*, providers: bool = False, hours: int | None = None, **_: Any) -> dict[str, Any]:
    """Compare what is promised with what there is, all of it or the last `hours`, and keep what was found."""
    since = timezone.now() - dt.timedelta(hours=hours) if hours else None
    report = verification.run(since=since, providers=providers)
    kept = verification.keep(report, by="beat")
    return {"verification": kept.pk, "passed": report.passed, "failed": report.failed}
