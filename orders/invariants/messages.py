"""Orders and their messages: those that move them, and those that report on them."""

from __future__ import annotations

import datetime as dt

from orders import contracts
from orders.invariants import repairs
from orders.invariants.patience import OUTSTANDING, READ, RECENT, TRACE, patience
from orders.moves import Status
from outbox.contracts import Event
from outbox.verification.catalogue import Invariant

_KINDS: list[type[Event]] = contracts.EVENTS
EVENTS = [event.name for event in _KINDS]

ONCE_ONLY = [name for name in EVENTS if name not in (contracts.OrderPlaced.name, contracts.ChargeStranded.name)]
"""OrderPlaced has an invariant of its own; two workers may both find a charge stranded."""

FINAL_EVENTS = [
    (str(Status.FULFILLED), contracts.OrderFulfilled.name),
    (str(Status.REJECTED), contracts.OrderRejected.name),
    (str(Status.CANCELLED), contracts.OrderCancelled.name),
]

MOST_RESUMPTIONS = 12
"""With the doubling intervals of the sweep this is three quarters of an hour."""

TAKEN_WITHIN = dt.timedelta(minutes=1)
"""
How long after its delivery a step has started, failed or been postponed, if it does not wait in its queue.
"""

INVARIANTS = [
    Invariant(
        name="orders-were-published",
        sentence="Every order has exactly one OrderPlaced, unless that has outlived its retention.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            JOIN orders_ordertransition AS placed ON placed.order_id = o.id AND placed.from_status = ''
            LEFT JOIN outbox_outboxmessage AS message
              ON message.key = o.id::text AND message.event_name = '{contracts.OrderPlaced.name}'
            WHERE {RECENT}
            GROUP BY o.id, placed.at
            HAVING count(message.id) > 1 OR (count(message.id) = 0 AND placed.at > %(retained)s)
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
    Invariant(
        name="no-event-was-published-twice",
        sentence="No order has two messages of one event, except for a stranded charge that two workers found.",
        sql="""
            SELECT DISTINCT coalesce(o.number, twice.key) FROM (
                SELECT key FROM outbox_outboxmessage
                WHERE event_name = ANY(%(events)s) AND created_at >= %(since)s
                GROUP BY key, event_name HAVING count(*) > 1
            ) AS twice
            LEFT JOIN orders_order AS o ON o.id::text = twice.key
        """,
        values=lambda: {"events": ONCE_ONLY},
        command=TRACE,
    ),
    Invariant(
        name="messages-belong-to-orders",
        sentence="Every message and every open dead letter of an order belongs to an order that exists.",
        sql="""
            SELECT about.key FROM (
                SELECT key FROM outbox_outboxmessage
                WHERE event_name = ANY(%(events)s) AND created_at >= %(since)s
                UNION
                SELECT key FROM outbox_deadletter WHERE event_name = ANY(%(events)s) AND resolution = 'open'
            ) AS about
            WHERE NOT EXISTS (SELECT FROM orders_order WHERE id::text = about.key)
        """,
        values=lambda: {"events": EVENTS},
        command=READ,
    ),
    Invariant(
        name="unfinished-orders-go-on",
        sentence="Every unfinished order has a step that is due, a delivery under way, or a dead letter.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            WHERE o.due_at < now() - %(patience)s
              AND (o.lease_until IS NULL OR o.lease_until < now())
              AND NOT {OUTSTANDING}
              AND NOT EXISTS (
                  SELECT FROM outbox_outboxmessage AS message
                  WHERE id = o.message_id AND status <> 'published' AND (workflows = '{{}}' OR EXISTS (
                      SELECT FROM unnest(workflows) AS name WHERE starts_with(name, 'orders.workflows.')
                  ))
              )
              AND NOT EXISTS (
                  SELECT FROM outbox_deadletter
                  WHERE message_id = o.message_id AND resolution IN ('open', 'discarded')
                    AND (workflow = '' OR workflow LIKE 'orders.workflows.%%')
              )
        """,  # noqa: S608 - names of our own
        values=patience,
        command="python manage.py verify --repair",
        repair=repairs.START_AGAIN,
    ),
    Invariant(
        name="given-up-orders-are-cancelled",
        sentence="No unfinished order waits for a step whose dead letter was discarded.",
        sql="""
            SELECT o.number FROM orders_order AS o
            JOIN outbox_outboxmessage AS message ON message.id = o.message_id AND message.status <> 'buried'
            WHERE o.finished_at IS NULL
              AND (
                  SELECT resolution FROM outbox_deadletter
                  WHERE message_id = o.message_id AND (workflow = '' OR workflow LIKE 'orders.workflows.%%')
                  ORDER BY id DESC LIMIT 1
              ) = 'discarded'
        """,
        command=TRACE,
    ),
    Invariant(
        name="unfinished-orders-keep-their-message",
        sentence="The message that moves an unfinished order exists, and was not given up for good.",
        sql="""
            SELECT o.number FROM orders_order AS o
            LEFT JOIN outbox_outboxmessage AS message ON message.id = o.message_id
            WHERE o.finished_at IS NULL
              AND (message.id IS NULL OR message.status = 'buried' AND NOT EXISTS (
                  SELECT FROM outbox_deadletter WHERE message_id = o.message_id AND resolution = 'open'
              ))
        """,
        command=TRACE,
    ),
    Invariant(
        name="started-orders-move",
        sentence="No order is started repeatedly without making progress.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            JOIN outbox_outboxmessage AS message ON message.id = o.message_id
            WHERE o.finished_at IS NULL AND o.resumptions >= %(most)s
              AND (o.lease_until IS NULL OR o.lease_until < now())
              AND message.status = 'published' AND message.published_at < now() - %(taken)s
              AND NOT {OUTSTANDING}
              AND NOT EXISTS (
                  SELECT FROM outbox_deadletter
                  WHERE message_id = message.id AND resolution IN ('open', 'discarded')
              )
        """,  # noqa: S608 - names of our own
        values=lambda: {"most": MOST_RESUMPTIONS, "taken": TAKEN_WITHIN},
        command="python manage.py outbox_status",
    ),
    Invariant(
        name="ended-orders-said-so",
        sentence="Every ended order published its result: OrderFulfilled, OrderRejected or OrderCancelled.",
        sql="""
            SELECT o.number FROM orders_order AS o
            JOIN unnest(%(statuses)s::text[], %(events)s::text[]) AS expected (status, event)
              ON expected.status = o.status
            WHERE o.finished_at > %(retained)s AND o.finished_at >= %(since)s
              AND NOT EXISTS (
                  SELECT FROM outbox_outboxmessage WHERE key = o.id::text AND event_name = expected.event
              )
        """,
        values=lambda: {
            "statuses": [status for status, _ in FINAL_EVENTS],
            "events": [event for _, event in FINAL_EVENTS],
        },
        command=TRACE,
    ),
    Invariant(
        name="cancellations-were-published",
        sentence="Every order whose cancellation was requested has its CancellationRequested.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            WHERE o.cancel_requested_at > %(retained)s AND {RECENT}
              AND NOT EXISTS (
                  SELECT FROM outbox_outboxmessage
                  WHERE key = o.id::text AND event_name = '{contracts.CancellationRequested.name}'
              )
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
    Invariant(
        name="refunds-were-published",
        sentence="Every refund that the provider made was published as OrderRefunded.",
        sql=f"""
            SELECT o.number FROM orders_refund AS refund
            JOIN orders_payment AS payment ON payment.id = refund.payment_id
            JOIN orders_order AS o ON o.id = payment.order_id
            WHERE refund.status = 'succeeded' AND refund.given_back_by = ''
              AND refund.resolved_at > %(retained)s AND refund.resolved_at >= %(since)s
              AND NOT EXISTS (
                  SELECT FROM outbox_outboxmessage
                  WHERE key = o.id::text AND event_name = '{contracts.OrderRefunded.name}'
              )
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
]
