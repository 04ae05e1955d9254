"""
Messages whose customer was not reached through a channel, and delivering them again.

What is under way is the outbox's business, which finds what is lost. Missing is what nothing is under way of:
messages of the time before deliveries were written down, or whose delivery somebody deleted.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import connection

from notifications import rendering
from notifications.services import ADDRESSES
from outbox import redelivery
from outbox.verification.catalogue import Repair

AFTER = dt.timedelta(minutes=5)
"""How long a notification of a delivered message may be missing before somebody has to look."""

WORKFLOW = "notifications.workflows.by_{channel}"

EVENTS = sorted(event.name for event in rendering.TEMPLATES)

CHANNELS = ", ".join(
    f"('{channel}', '{WORKFLOW.format(channel=channel)}', payload ->> '{field}')"
    for channel, field in ADDRESSES.items()
)
"""Channel, workflow and the customer's address, as rows of SQL."""

NEVER_WRITTEN_DOWN = """
    NOT EXISTS (
        SELECT FROM notifications_notification AS notification
        WHERE notification.message_id = message.id AND notification.channel = way.channel
    )
"""

NEVER_ENDED = """
    EXISTS (
        SELECT FROM notifications_notification AS notification
        WHERE notification.message_id = message.id AND notification.channel = way.channel
          AND notification.status IN ('pending', 'sending')
          AND (notification.lease_until IS NULL OR notification.lease_until < now())
    )
"""


def select(columns: str, is_missing: str) -> str:
    """SQL for the messages and channels of which a notification is missing, and nothing is under way."""
    return f"""
        SELECT DISTINCT {columns} FROM outbox_outboxmessage AS message
        CROSS JOIN LATERAL (VALUES {CHANNELS}) AS way (channel, workflow, address)
        WHERE message.event_name = ANY(%(told)s) AND message.created_at >= %(since)s
          AND message.status = 'published' AND message.published_at < now() - %(missing)s
          AND btrim(way.address) <> ''
          AND {is_missing}
          AND NOT EXISTS (
              SELECT FROM outbox_delivery AS delivery
              WHERE delivery.message_id = message.id AND delivery.workflow = way.workflow
          )
          AND NOT EXISTS (
              SELECT FROM outbox_deadletter AS dead_letter
              WHERE dead_letter.message_id = message.id AND dead_letter.workflow IN ('', way.workflow)
                AND dead_letter.resolution IN ('open', 'discarded')
          )
    """  # noqa: S608 - names of our own


def values() -> dict[str, Any]:
    """What `select` needs, but for `since`."""
    return {"missing": AFTER, "told": EVENTS}


def _deliver_again(order_number: str) -> str:
    """Deliver the messages of an order again to the channels of which a notification is missing."""
    found = select("message.id, way.workflow", f"({NEVER_WRITTEN_DOWN} OR {NEVER_ENDED})")
    with connection.cursor() as cursor:
        cursor.execute(
            f"{found} AND message.payload ->> 'order_number' = %(number)s",
            values() | {"since": dt.datetime(1, 1, 1, tzinfo=dt.UTC), "number": order_number},
        )
        missing = cursor.fetchall()
    for message_id, workflow in missing:
        redelivery.redeliver([message_id], workflow=workflow)
    again = ", ".join(f"{message_id} to {workflow}" for message_id, workflow in missing)
    return f"deliver again: {again}" if again else ""


DELIVER_AGAIN = Repair(what="deliver the message to the channel again", apply=_deliver_again)
