"""
What orders promises: of their own tables, and of the messages that move them.

A step writes an order's status, its history, its effects and its messages in one transaction, so most
of these hold in every snapshot without a grace. The two that speak of work still to come allow for
what the sweep waits for and for what the length of the queue explains.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

from celery import current_app
from kombu.exceptions import OperationalError as BrokerError

from orders import contracts, moves, reconciliation, repairs
from orders.moves import Status
from orders.services import LONGEST_PAUSE
from orders.tasks import SECONDS_PER_WAITING_TASK
from orders.transitions import LEASE, STEP_DEADLINE
from outbox import broker
from outbox.contracts import Event
from outbox.verification import Compare, Invariant, Repair

CLOCKS_DIFFER = dt.timedelta(seconds=30)
"""By how much a time that a statement took may be ahead of the snapshot's."""

PROVIDER = "look up {id} at the provider, and compare with manage.py order_trace"

TRACE = "python manage.py order_trace {id}"

CHARGED = [str(status) for status in (Status.CHARGED, Status.CANCELLING, Status.FULFILLED)]

_KINDS: list[type[Event]] = contracts.EVENTS
EVENTS = [event.name for event in _KINDS]

ONCE_ONLY = [name for name in EVENTS if name not in (contracts.OrderPlaced.name, contracts.ChargeStranded.name)]
"""OrderPlaced has a promise of its own; two workers may both find a charge stranded."""

TOLD_AT_THE_END = [
    (str(Status.FULFILLED), contracts.OrderFulfilled.name),
    (str(Status.REJECTED), contracts.OrderRejected.name),
    (str(Status.CANCELLED), contracts.OrderCancelled.name),
]

RECENT = "(o.finished_at IS NULL OR o.finished_at >= %(since)s)"
"""Orders that may have changed since."""


def patience() -> dict[str, Any]:
    """
    How late an order, or the refund of a stranded charge, may be before somebody has to look.

    The sweep's longest pause and a step, and what the queue needs. A broker that does not answer
    explains no delay: then nothing moves.
    """
    waiting = 0
    with contextlib.suppress(*_broker_errors()):
        waiting = broker.waiting("orders")
    queue = dt.timedelta(seconds=waiting * SECONDS_PER_WAITING_TASK)
    return {"patience": LONGEST_PAUSE + STEP_DEADLINE + LEASE + queue}


def _broker_errors() -> tuple[type[BaseException], ...]:
    with current_app.connection_for_read() as link:
        return (BrokerError, OSError, *link.connection_errors, *link.channel_errors)


def _legal_moves() -> list[str]:
    following = [f"{before}>{after}" for before, afters in moves.MOVES.items() for after in afters]
    return [f">{Status.PLACED}", *following]


def _uncompensated(status: Status) -> str:
    """Orders of a final status that still have a charge nobody gives back or is about to."""
    return f"""
        SELECT o.number FROM orders_order AS o
        JOIN orders_payment AS payment ON payment.order_id = o.id AND payment.status = 'succeeded'
        LEFT JOIN orders_refund AS refund ON refund.payment_id = payment.id AND refund.status = 'succeeded'
        WHERE o.status = '{status}' AND refund.id IS NULL
          AND o.finished_at < now() - %(patience)s
          AND (o.finished_at >= %(since)s OR payment.resolved_at >= %(since)s)
          AND NOT EXISTS (
              SELECT FROM outbox_outboxmessage AS message
              LEFT JOIN outbox_deadletter AS letter
                ON letter.message_id = message.id AND letter.resolution = 'open'
              WHERE message.key = o.id::text AND message.event_name = '{contracts.ChargeStranded.name}'
                AND (message.status = 'pending' OR letter.id IS NOT NULL
                     OR message.not_before > now() - %(patience)s)
          )
    """  # noqa: S608 - names of our own


def _compared(
    name: str,
    sentence: str,
    sql: str,
    compare: Compare,
    command: str = PROVIDER,
    repair: Repair | None = None,
) -> Invariant:
    return Invariant(
        name=name,
        sentence=sentence,
        sql=sql,
        values=reconciliation.values,
        compare=compare,
        asks_providers=True,
        command=command,
        repair=repair,
    )


INVARIANTS = [
    # Orders and their messages ----------------------------------------------------------------------
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
        sentence="No order has two messages of one event, but for a stranded charge that two workers found.",
        sql="""
            SELECT key FROM outbox_outboxmessage
            WHERE event_name = ANY(%(events)s) AND created_at >= %(since)s
            GROUP BY key, event_name HAVING count(*) > 1
        """,
        values=lambda: {"events": ONCE_ONLY},
        command="python manage.py outbox_status",
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
        command="python manage.py outbox_status",
    ),
    Invariant(
        name="unfinished-orders-go-on",
        sentence="Every unfinished order has a step that is due, a message that waits, or an open dead letter.",
        sql="""
            SELECT o.number FROM orders_order AS o
            WHERE o.due_at < now() - %(patience)s
              AND (o.lease_until IS NULL OR o.lease_until < now())
              AND NOT EXISTS (
                  SELECT FROM outbox_outboxmessage WHERE id = o.message_id AND status <> 'published'
              )
              AND NOT EXISTS (
                  SELECT FROM outbox_deadletter
                  WHERE message_id = o.message_id AND resolution = 'open'
                    AND (workflow = '' OR workflow LIKE 'orders.workflows.%%')
              )
        """,
        values=patience,
        command="python manage.py verify --repair",
        repair=repairs.START_AGAIN,
    ),
    Invariant(
        name="unfinished-orders-keep-their-message",
        sentence="The message that moves an unfinished order on still exists.",
        sql="""
            SELECT o.number FROM orders_order AS o
            WHERE o.finished_at IS NULL
              AND NOT EXISTS (SELECT FROM outbox_outboxmessage WHERE id = o.message_id)
        """,
        command=TRACE,
    ),
    Invariant(
        name="ended-orders-said-so",
        sentence="Every order that ended published how: OrderFulfilled, OrderRejected or OrderCancelled.",
        sql="""
            SELECT o.number FROM orders_order AS o
            JOIN unnest(%(statuses)s::text[], %(events)s::text[]) AS told (status, event)
              ON told.status = o.status
            WHERE o.finished_at > %(retained)s AND o.finished_at >= %(since)s
              AND NOT EXISTS (
                  SELECT FROM outbox_outboxmessage WHERE key = o.id::text AND event_name = told.event
              )
        """,
        values=lambda: {
            "statuses": [status for status, _ in TOLD_AT_THE_END],
            "events": [event for _, event in TOLD_AT_THE_END],
        },
        command=TRACE,
    ),
    Invariant(
        name="cancellations-were-published",
        sentence="Every order that somebody asked to cancel has its CancellationRequested.",
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
        sentence="Every refund that was made was published as OrderRefunded.",
        sql=f"""
            SELECT o.number FROM orders_refund AS refund
            JOIN orders_payment AS payment ON payment.id = refund.payment_id
            JOIN orders_order AS o ON o.id = payment.order_id
            WHERE refund.status = 'succeeded'
              AND refund.resolved_at > %(retained)s AND refund.resolved_at >= %(since)s
              AND NOT EXISTS (
                  SELECT FROM outbox_outboxmessage
                  WHERE key = o.id::text AND event_name = '{contracts.OrderRefunded.name}'
              )
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
    # Orders and their history -----------------------------------------------------------------------
    Invariant(
        name="history-is-unbroken",
        sentence="An order's moves lead from placed to its status without a gap.",
        sql=f"""
            SELECT number FROM (
                SELECT o.number, o.status, move.to_status,
                       move.from_status IS DISTINCT FROM
                           lag(move.to_status, 1, '') OVER (PARTITION BY o.id ORDER BY move.id) AS broken,
                       row_number() OVER (PARTITION BY o.id ORDER BY move.id DESC) AS from_last
                FROM orders_order AS o LEFT JOIN orders_ordertransition AS move ON move.order_id = o.id
                WHERE {RECENT}
            ) AS told
            GROUP BY number
            HAVING bool_or(broken) OR bool_or(from_last = 1 AND to_status IS DISTINCT FROM status)
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
    Invariant(
        name="moves-were-legal",
        sentence="Every move of an order is one that the table of moves allows.",
        sql="""
            SELECT DISTINCT o.number FROM orders_ordertransition AS move
            JOIN orders_order AS o ON o.id = move.order_id
            WHERE move.at >= %(since)s AND move.from_status || '>' || move.to_status <> ALL(%(legal)s)
        """,
        values=lambda: {"legal": _legal_moves()},
        command=TRACE,
    ),
    Invariant(
        name="leases-are-short",
        sentence="No step holds an order beyond its lease, and none holds one that has ended.",
        sql="""
            SELECT o.number FROM orders_order AS o
            WHERE o.lease_until IS NOT NULL
              AND (o.finished_at IS NOT NULL OR o.lease_until > now() + %(longest)s)
        """,
        values=lambda: {"longest": LEASE + CLOCKS_DIFFER},
        command=TRACE,
    ),
    Invariant(
        name="orders-remember-their-key",
        sentence="Every order has exactly one idempotency record, for as long as the order exists.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            LEFT JOIN orders_idempotencyrecord AS record ON record.order_id = o.id
            WHERE {RECENT}
            GROUP BY o.id HAVING count(record.id) <> 1
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
    Invariant(
        name="totals-are-sums",
        sentence="The total of every validated order is the sum of its lines.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            LEFT JOIN orders_orderline AS line ON line.order_id = o.id
            WHERE o.status NOT IN ('placed', 'rejected', 'cancelled') AND {RECENT}
            GROUP BY o.id
            HAVING o.total_minor <> coalesce(sum(line.quantity * line.unit_price_minor), 0)
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
    # Money ------------------------------------------------------------------------------------------
    Invariant(
        name="orders-are-charged-once",
        sentence="An order has at most one captured, unrefunded charge, and every charge is of its amount.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            JOIN orders_payment AS payment ON payment.order_id = o.id
            LEFT JOIN orders_refund AS refund ON refund.payment_id = payment.id AND refund.status = 'succeeded'
            WHERE {RECENT}
            GROUP BY o.id
            HAVING count(*) FILTER (WHERE payment.status = 'succeeded' AND refund.id IS NULL) > 1
                OR bool_or(payment.amount_minor <> o.total_minor OR payment.currency <> o.currency)
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
    Invariant(
        name="shipped-orders-are-charged",
        sentence="An order that is charged, on its way back, or shipped has a captured, unrefunded charge.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            LEFT JOIN orders_shipment AS shipment ON shipment.order_id = o.id
            WHERE (o.status = ANY(%(charged)s) OR shipment.status = 'shipped') AND {RECENT}
              AND NOT EXISTS (
                  SELECT FROM orders_payment AS payment
                  LEFT JOIN orders_refund AS refund
                    ON refund.payment_id = payment.id AND refund.status = 'succeeded'
                  WHERE payment.order_id = o.id AND payment.status = 'succeeded' AND refund.id IS NULL
              )
        """,  # noqa: S608 - names of our own
        values=lambda: {"charged": CHARGED},
        command=TRACE,
    ),
    Invariant(
        name="cancelled-orders-are-refunded",
        sentence="Every charge of a cancelled order is refunded, or about to be.",
        sql=_uncompensated(Status.CANCELLED),
        values=patience,
        command="python manage.py verify --repair",
        repair=repairs.REFUND_STRANDED,
    ),
    Invariant(
        name="rejected-orders-are-not-charged",
        sentence="No rejected order has a charge that is neither refunded nor about to be.",
        sql=_uncompensated(Status.REJECTED),
        values=patience,
        command="python manage.py verify --repair",
        repair=repairs.REFUND_STRANDED,
    ),
    Invariant(
        name="refunds-are-of-charges",
        sentence="Every refund is of a captured charge, of its amount and in its currency.",
        sql="""
            SELECT refund.idempotency_key FROM orders_refund AS refund
            JOIN orders_payment AS payment ON payment.id = refund.payment_id
            WHERE refund.requested_at >= %(since)s
              AND (payment.status <> 'succeeded' OR refund.amount_minor <> payment.amount_minor
                   OR refund.currency <> payment.currency)
        """,
        command="python manage.py verify --providers",
    ),
    Invariant(
        name="ended-orders-have-no-open-payment",
        sentence="No order that ended has a charge whose outcome is open.",
        sql="""
            SELECT DISTINCT o.number FROM orders_order AS o
            JOIN orders_payment AS payment ON payment.order_id = o.id
            WHERE o.finished_at >= %(since)s AND payment.status IN ('requested', 'unknown')
        """,
        command="python manage.py verify --providers",
    ),
    Invariant(
        name="effects-name-their-record",
        sentence="Every charge, refund and shipment that took effect says when, and the provider's id for it.",
        sql="""
            SELECT idempotency_key FROM (
                SELECT idempotency_key, provider_id, resolved_at FROM orders_payment
                WHERE status = 'succeeded'
                UNION ALL
                SELECT idempotency_key, provider_id, resolved_at FROM orders_refund
                WHERE status = 'succeeded'
                UNION ALL
                SELECT idempotency_key, provider_id, resolved_at FROM orders_shipment
                WHERE status = 'shipped'
            ) AS effect
            WHERE (provider_id = '' OR resolved_at IS NULL)
              AND (resolved_at IS NULL OR resolved_at >= %(since)s)
        """,
        command="python manage.py verify --providers",
    ),
    # Shipments and stock ----------------------------------------------------------------------------
    Invariant(
        name="fulfilled-orders-are-shipped",
        sentence="An order is fulfilled exactly when its shipment is shipped.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            LEFT JOIN orders_shipment AS shipment ON shipment.order_id = o.id
            WHERE (o.status = 'fulfilled') <> (coalesce(shipment.status, '') = 'shipped') AND {RECENT}
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
    Invariant(
        name="refused-shipments-are-compensated",
        sentence="An order whose shipment was refused is on its way back or cancelled.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            JOIN orders_shipment AS shipment ON shipment.order_id = o.id
            WHERE shipment.status = 'refused' AND o.status NOT IN ('cancelling', 'cancelled') AND {RECENT}
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
    Invariant(
        name="stock-adds-up",
        sentence="Of every product, stock on hand, reserved and shipped is all that was received.",
        sql="""
            SELECT sku FROM orders_product WHERE on_hand + reserved + shipped <> received
        """,
        command="python manage.py outbox_status",
    ),
    Invariant(
        name="reservations-are-held",
        sentence="Of every product, exactly as much is reserved as unfinished, validated orders hold.",
        sql="""
            SELECT product.sku FROM orders_product AS product
            LEFT JOIN (
                SELECT line.product_id, sum(line.quantity) AS quantity
                FROM orders_order AS o JOIN orders_orderline AS line ON line.order_id = o.id
                WHERE o.status = ANY(%(holding)s)
                GROUP BY line.product_id
            ) AS held ON held.product_id = product.id
            WHERE product.reserved <> coalesce(held.quantity, 0)
        """,
        values=lambda: {"holding": [str(status) for status in repairs.HOLDING_STOCK]},
        command="python manage.py verify --repair",
        repair=repairs.RELEASE_STOCK,
    ),
    Invariant(
        name="shipped-stock-left",
        sentence="Of every product, exactly as much is shipped as fulfilled orders were sent.",
        sql="""
            SELECT product.sku FROM orders_product AS product
            LEFT JOIN (
                SELECT line.product_id, sum(line.quantity) AS quantity
                FROM orders_order AS o JOIN orders_orderline AS line ON line.order_id = o.id
                WHERE o.status = 'fulfilled'
                GROUP BY line.product_id
            ) AS sent ON sent.product_id = product.id
            WHERE product.shipped <> coalesce(sent.quantity, 0)
              AND (%(since)s::text = '-infinity' OR product.id IN (
                  SELECT line.product_id
                  FROM orders_orderline AS line JOIN orders_order AS o ON o.id = line.order_id
                  WHERE o.finished_at >= %(since)s
              ))
        """,
        command="python manage.py outbox_status",
    ),
    # The providers' own records ---------------------------------------------------------------------
    _compared(
        "our-charges-are-at-the-provider",
        "Every captured charge in our books is in the provider's list, of the same amount.",
        reconciliation.CHARGES,
        reconciliation.charges_missing_there,
    ),
    _compared(
        "the-provider-charged-once",
        "The provider holds at most one captured, unrefunded charge of an order.",
        reconciliation.CHARGES,
        reconciliation.charges_made_twice,
    ),
    _compared(
        "their-charges-are-in-our-books",
        "Every captured charge that the provider holds under a key of ours is in our books.",
        reconciliation.CHARGES,
        reconciliation.charges_missing_here,
    ),
    _compared(
        "no-charge-is-stranded",
        "The provider holds no charge that our books do not have of an order that was rejected or cancelled.",
        reconciliation.CHARGES,
        reconciliation.charges_stranded,
        "python manage.py verify --providers --repair",
        repairs.ADOPT_STRANDED,
    ),
    _compared(
        "our-refunds-are-at-the-provider",
        "Every refund in our books is in the provider's list, of the same amount.",
        reconciliation.REFUNDS,
        reconciliation.refunds_missing_there,
    ),
    _compared(
        "their-refunds-are-in-our-books",
        "Every refund that the provider made under a key of ours is in our books.",
        reconciliation.REFUNDS,
        reconciliation.refunds_missing_here,
    ),
    _compared(
        "our-shipments-are-at-the-warehouse",
        "Every shipment in our books is in the warehouse's list.",
        reconciliation.SHIPMENTS,
        reconciliation.shipments_missing_there,
    ),
    _compared(
        "their-shipments-are-in-our-books",
        "Every shipment that left the warehouse under a key of ours is in our books, once.",
        reconciliation.SHIPMENTS,
        reconciliation.shipments_missing_here,
    ),
]
