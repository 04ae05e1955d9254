"""The invariants of notifications: every customer is notified once, and failed notifications are visible."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from notifications import missing
from notifications.models import Channel
from outbox.database import uuid7
from outbox.database.clock import LONGEST_SKEW
from outbox.verification.catalogue import Invariant, Row, Snapshot

TRACE = "python manage.py order_trace {id}"

ORDER_NUMBER = "message.payload ->> 'order_number'"


def _missing(channel: Channel, sent: list[Row], snapshot: Snapshot) -> Iterable[str]:
    from notifications import providers  # it loads the providers' libraries, which only this needs

    return providers.missing(channel, sent, snapshot)


def _at_the_provider(channel: Channel) -> Invariant:
    return Invariant(
        name=f"{channel}-is-at-the-provider",
        sentence=f"Every notification sent by {channel.label} is in the provider's own list.",
        sql="""
            SELECT order_number, provider_message_id FROM notifications_notification
            WHERE status = 'sent' AND channel = %(channel)s AND sent_at >= %(since)s
        """,
        values=lambda: {"channel": str(channel)},
        compare=functools.partial(_missing, channel),
        needs_providers=True,
        command=TRACE,
    )


INVARIANTS = [
    Invariant(
        name="customers-are-told",
        sentence="Every message for customers has a notification for each channel with an address.",
        sql=missing.select(ORDER_NUMBER, missing.NEVER_WRITTEN_DOWN),
        values=missing.values,
        command="python manage.py verify --repair",
        repair=missing.DELIVER_AGAIN,
    ),
    Invariant(
        name="notifications-come-to-an-end",
        sentence="Every notification is sent, suppressed or given up, or a delivery of it is under way.",
        sql=missing.select(ORDER_NUMBER, missing.NEVER_ENDED),
        values=missing.values,
        command="python manage.py verify --repair",
        repair=missing.DELIVER_AGAIN,
    ),
    Invariant(
        name="customers-are-told-once",
        sentence="There is one notification for each message, channel and recipient.",
        sql="""
            SELECT min(order_number) FROM notifications_notification
            WHERE created_at >= %(since)s
            GROUP BY message_id, channel, recipient HAVING count(*) > 1
        """,
        command=TRACE,
    ),
    Invariant(
        name="notifications-tell-of-messages",
        sentence="Every notification is about a message of its order, unless that is older than the retention.",
        sql=f"""
            SELECT DISTINCT notification.order_number FROM notifications_notification AS notification
            LEFT JOIN outbox_outboxmessage AS message ON message.id = notification.message_id
            WHERE notification.created_at >= %(since)s
              AND CASE WHEN message.id IS NULL
                  THEN {uuid7.moment_in_sql("notification.message_id")} > %(retained)s + %(skew)s
                  ELSE message.key <> notification.order_id::text OR message.event_name <> ALL(%(events)s) END
        """,  # noqa: S608 - names of our own
        values=lambda: {"skew": LONGEST_SKEW, "events": missing.EVENTS},
        command=TRACE,
    ),
    Invariant(
        name="failed-notifications-have-letters",
        sentence="Every notification that was given up has a dead letter of its channel.",
        sql="""
            SELECT DISTINCT notification.order_number FROM notifications_notification AS notification
            WHERE notification.status = 'failed' AND notification.created_at >= %(since)s
              AND NOT EXISTS (
                  SELECT FROM outbox_deadletter AS dead_letter
                  WHERE dead_letter.message_id = notification.message_id
                    AND dead_letter.consumer = 'notifications.tasks.send_' || notification.channel
              )
        """,
        command=TRACE,
    ),
    Invariant(
        name="sent-notifications-name-their-record",
        sentence="Every sent notification has a time and the provider's id, and its outcome is not open.",
        sql="""
            SELECT DISTINCT order_number FROM notifications_notification
            WHERE status = 'sent' AND created_at >= %(since)s
              AND (sent_at IS NULL OR provider_message_id = '' OR outcome_open)
        """,
        command=TRACE,
    ),
    Invariant(
        name="provider-ids-are-told-apart",
        sentence="No two notifications of a channel have the same id of the provider.",
        sql="""
            SELECT min(order_number) FROM notifications_notification
            WHERE status = 'sent' AND provider_message_id <> '' AND created_at >= %(since)s
            GROUP BY channel, provider_message_id HAVING count(*) > 1
        """,
        command=TRACE,
    ),
    *map(_at_the_provider, Channel),
]
