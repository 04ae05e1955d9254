"""
Finding news that got lost on its way, and delivering its message again.

A broker may lose a message before its worker has written a notification down, so there is no row that
could be overdue. What is looked through instead are the messages a broker took: once each, up to a
watermark, and again after every redelivery.
"""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.utils import timezone

from notifications import rendering
from notifications.models import Notification, Watermark
from notifications.services import ADDRESSES
from outbox import crash_points, publisher, telemetry
from outbox.models import DeadLetter, OutboxMessage

PATIENCE = dt.timedelta(seconds=45)
"""How long after its delivery a message may be without a finished notification: a task's hard limit of 20
seconds, one redelivery by the broker, and some waiting in a queue. Longer than any statement may run,
so that all rows of that age are visible."""

MOST_DOUBLINGS = 6
"""The waits before repeated redeliveries grow to three quarters of an hour, so that a pool that is down
finds no pile of copies when it is back."""

UNDOUBLED = 2
"""Redeliveries that do not count for that: an order's steps have its message delivered again, too."""

FIRST_LOOK = dt.timedelta(days=1)
"""How far back the very first look goes."""

SLICE = 5_000
"""Messages looked through at a time."""

WORKFLOW = "notifications.workflows.by_{channel}"


class Missing(NamedTuple):
    """A message whose customer should have heard of it through a channel, and has not."""

    message_id: uuid.UUID
    workflow: str
    redeliveries: int

    @property
    def wait(self) -> dt.timedelta:
        """How much longer to wait for it before it is delivered again."""
        doublings = min(max(0, self.redeliveries - UNDOUBLED), MOST_DOUBLINGS)
        return PATIENCE * (2**doublings - 1)


def resume_lost() -> int:
    """
    Deliver the messages again whose news is missing; return how many deliveries were asked for.

    Left alone are notifications that are sent, suppressed or given up, and messages that wait for a
    delivery anyway. Safe to run at any time, in any number of processes.
    """
    with transaction.atomic(durable=True):
        mark = _take_watermark()
        if mark is None:
            return 0
        missing, mark.checked_until = _look(since=mark.checked_until)
        mark.save()
        alike = itertools.groupby(sorted(missing, key=_delivery), key=_delivery)
        for (workflow, wait), group in alike:
            publisher.redeliver([one.message_id for one in group], workflow=workflow, wait=wait)
    crash_points.reached("news.resumed")
    if missing:
        telemetry.emit("news.resumed", messages=len(missing))
    return len(missing)


def _delivery(missing: Missing) -> tuple[str, dt.timedelta]:
    return missing.workflow, missing.wait


def _take_watermark() -> Watermark | None:
    """The mark, locked; None while another sweep holds it."""
    Watermark.objects.get_or_create(pk=1, defaults={"checked_until": timezone.now() - FIRST_LOOK})
    return Watermark.objects.select_for_update(skip_locked=True).filter(pk=1).first()


def _look(*, since: dt.datetime) -> tuple[list[Missing], dt.datetime]:
    """What is missing among the messages published since then, and how far the look went."""
    values: dict[str, Any] = {
        "since": since,
        "patience": PATIENCE,
        "slice": SLICE,
        "news": [event.name for event in rendering.TEMPLATES],
    }
    ways = []
    for number, (channel, field) in enumerate(ADDRESSES.items()):
        values |= {f"channel{number}": str(channel), f"field{number}": field}
        values |= {f"workflow{number}": WORKFLOW.format(channel=channel)}
        ways.append(f"(%(channel{number})s, %(workflow{number})s, payload ->> %(field{number})s)")
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH published AS MATERIALIZED (
                SELECT id, published_at, redeliveries, event_name, payload FROM {OutboxMessage._meta.db_table}
                WHERE status = 'published' AND published_at > %(since)s
                  AND published_at <= statement_timestamp() - %(patience)s
                ORDER BY published_at FETCH FIRST %(slice)s ROWS WITH TIES
            )
            SELECT id, way.workflow, redeliveries, NULL
            FROM published
            CROSS JOIN LATERAL (VALUES {", ".join(ways)}) AS way (channel, workflow, address)
            WHERE event_name = ANY(%(news)s) AND btrim(way.address) <> ''
              AND NOT EXISTS (
                  SELECT FROM {Notification._meta.db_table} AS told
                  WHERE told.message_id = published.id AND told.channel = way.channel
                    AND told.status IN ('sent', 'suppressed', 'failed'))
              AND NOT EXISTS (
                  SELECT FROM {DeadLetter._meta.db_table} AS letter
                  WHERE letter.message_id = published.id AND letter.workflow = way.workflow
                    AND letter.resolution <> 'replayed')
            UNION ALL
            SELECT NULL, NULL, NULL, CASE
                WHEN (SELECT count(*) FROM published) < %(slice)s THEN statement_timestamp() - %(patience)s
                ELSE (SELECT max(published_at) FROM published) END
            """,  # noqa: S608 - our own tables, numbered placeholders
            values,
        )
        *missing, (*_, looked_until) = cursor.fetchall()
    return [Missing(*row[:3]) for row in missing], looked_until
