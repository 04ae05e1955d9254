"""
Finds missing notifications and redelivers their messages.

The outbox detects lost deliveries. A notification is missing if no delivery of its message is under way,
because the message is older than delivery rows or because somebody deleted the row.
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
"""How long a notification of a delivered message may be missing before that is a violation."""

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
        WHERE notification.message_id = message.id AND notification.channel = target.channel
    )
"""

NEVER_ENDED = """
    EXISTS (
        SELECT FROM notifications_notification AS notification
        WHERE notification.message_id = message.id AND notification.channel = target.channel
          AND notification.status IN ('pending', 'sending')
          AND (notification.lease_until IS NULL OR notification.lease_until < now())
    )
"""


def select(columns: str, is_missing: str) -> str:
    """Return SQL for the messages and channels without a notification and without a delivery under way."""
    return f"""
        SELECT DISTINCT {columns} FROM outbox_outboxmessage AS message
        CROSS JOIN LATERAL (VALUES {CHANNELS}) AS target (channel, workflow, address)
        WHERE message.event_name = ANY(%(events)s) AND message.created_at >= %(since)s
          AND message.status = 'published' AND message.published_at < now() - %(missing)s
          AND btrim(target.address) <> ''
          AND {is_missing}
          AND NOT EXISTS (
              SELECT FROM outbox_delivery AS delivery
              WHERE delivery.message_id = message.id AND delivery.workflow = target.workflow
          )
          AND NOT EXISTS (
              SELECT FROM outbox_deadletter AS dead_letter
              WHERE dead_letter.message_id = message.id AND dead_letter.workflow IN ('', target.workflow)
                AND dead_letter.resolution IN ('open', 'discarded')
          )
    """  # noqa: S608 - names of our own


def values() -> dict[str, Any]:
    """Return the parameters of `select`, except `since`."""
    return {"missing": AFTER, "events": EVENTS}


def _deliver_again(order_number: str) -> str:
    """Redeliver the messages of an order to the channels whose notification is missing."""
    found = select("message.id, target.workflow", f"({NEVER_WRITTEN_DOWN} OR {NEVER_ENDED})")
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
