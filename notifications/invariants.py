"""
What notifications promises: every customer is told once, and what could not be told is visible.
"""

from __future__ import annotations

from notifications import providers, rendering
from notifications.models import Channel
from notifications.services import ADDRESSES
from notifications.sweep import PATIENCE, WORKFLOW
from outbox.promises import Invariant, written_at
from outbox.relay import LEASE

MISSING_AFTER = 10 * PATIENCE
"""How long the news of a message may be missing before somebody has to look: the sweep takes lost news up
after its patience, every few seconds, and each redelivery makes the message wait again."""

MOST_REDELIVERIES = 9
"""After so many, an hour and a half of the sweep's doubling waits, nobody seems to take the news at all."""

DELIVERED_LONG_AGO = "message.status = 'published' AND message.published_at < now() - %(missing)s"
DELIVERED_IN_VAIN = "message.redeliveries >= %(most)s AND message.created_at < now() - interval '1 hour'"

TRACE = "python manage.py order_trace {id}"

NEWS = sorted(event.name for event in rendering.TEMPLATES)

WAYS = ", ".join(
    f"('{channel}', '{WORKFLOW.format(channel=channel)}', payload ->> '{field}')"
    for channel, field in ADDRESSES.items()
)
"""Channel, workflow and the customer's address, as rows of SQL."""


def _news(told: str, when: str) -> str:
    """Messages whose news is not `told`, though nobody gave it up and it is late, which is `when`."""
    return f"""
        SELECT DISTINCT message.payload ->> 'order_number' FROM outbox_outboxmessage AS message
        CROSS JOIN LATERAL (VALUES {WAYS}) AS way (channel, workflow, address)
        WHERE message.event_name = ANY(%(news)s) AND message.created_at >= %(since)s AND ({when})
          AND btrim(way.address) <> ''
          AND {told}
          AND NOT EXISTS (
              SELECT FROM outbox_deadletter AS letter
              WHERE letter.message_id = message.id AND letter.workflow IN ('', way.workflow)
                AND letter.resolution <> 'replayed'
          )
    """  # noqa: S608 - names of our own


def _at_the_provider(channel: Channel) -> Invariant:
    return Invariant(
        name=f"{channel}-is-at-the-provider",
        sentence=f"Every notification sent by {channel.label} is in the provider's own list.",
        sql="""
            SELECT order_number, provider_message_id FROM notifications_notification
            WHERE status = 'sent' AND channel = %(channel)s AND sent_at >= %(since)s
        """,
        values=lambda: {"channel": str(channel)},
        compare=lambda sent, look: providers.missing(channel, sent, look),
        asks_providers=True,
        command=TRACE,
    )


INVARIANTS = [
    Invariant(
        name="customers-are-told",
        sentence="Every message for customers has a notification for each way the customer can be reached.",
        sql=_news(
            told="""NOT EXISTS (
              SELECT FROM notifications_notification AS told
              WHERE told.message_id = message.id AND told.channel = way.channel
          )""",
            when=f"{DELIVERED_LONG_AGO} OR {DELIVERED_IN_VAIN}",
        ),
        values=lambda: {"missing": MISSING_AFTER, "most": MOST_REDELIVERIES, "news": NEWS},
        command=TRACE,
    ),
    Invariant(
        name="notifications-come-to-an-end",
        sentence="Every notification is sent, suppressed or given up, or its message is delivered again.",
        sql=_news(
            told="""EXISTS (
              SELECT FROM notifications_notification AS told
              WHERE told.message_id = message.id AND told.channel = way.channel
                AND told.status IN ('pending', 'sending')
                AND (told.lease_until IS NULL OR told.lease_until < now())
          )""",
            when=DELIVERED_LONG_AGO,
        ),
        values=lambda: {"missing": MISSING_AFTER, "news": NEWS},
        command=TRACE,
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
        sentence="Every notification tells of a message of its order, unless that has outlived its retention.",
        sql=f"""
            SELECT DISTINCT told.order_number FROM notifications_notification AS told
            LEFT JOIN outbox_outboxmessage AS message ON message.id = told.message_id
            WHERE told.created_at >= %(since)s
              AND CASE WHEN message.id IS NULL
                  THEN {written_at("told.message_id")} > %(retained)s + %(clocks)s
                  ELSE message.key <> told.order_id::text OR message.event_name <> ALL(%(news)s) END
        """,  # noqa: S608 - names of our own
        values=lambda: {"clocks": LEASE, "news": NEWS},
        command=TRACE,
    ),
    Invariant(
        name="failed-notifications-have-letters",
        sentence="Every notification that was given up has a dead letter of its channel.",
        sql="""
            SELECT DISTINCT told.order_number FROM notifications_notification AS told
            WHERE told.status = 'failed' AND told.created_at >= %(since)s
              AND NOT EXISTS (
                  SELECT FROM outbox_deadletter AS letter
                  WHERE letter.message_id = told.message_id
                    AND letter.consumer = 'notifications.tasks.send_' || told.channel
              )
        """,
        command=TRACE,
    ),
    Invariant(
        name="sent-notifications-name-their-record",
        sentence="Every sent notification says when, has the provider's id, and leaves no outcome open.",
        sql="""
            SELECT DISTINCT order_number FROM notifications_notification
            WHERE status = 'sent' AND created_at >= %(since)s
              AND (sent_at IS NULL OR provider_message_id = '' OR outcome_open)
        """,
        command=TRACE,
    ),
    Invariant(
        name="provider-ids-are-told-apart",
        sentence="No two notifications of a channel claim the same record of the provider.",
        sql="""
            SELECT min(order_number) FROM notifications_notification
            WHERE status = 'sent' AND provider_message_id <> '' AND created_at >= %(since)s
            GROUP BY channel, provider_message_id HAVING count(*) > 1
        """,
        command=TRACE,
    ),
    *map(_at_the_provider, Channel),
]
