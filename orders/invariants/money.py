"""Charges and refunds: once, of the right amount, and refunded if the order is not shipped."""

from __future__ import annotations

from orders import contracts
from orders.invariants import repairs
from orders.invariants.patience import RECENT, TRACE, patience
from orders.moves import Status
from outbox.verification.catalogue import Invariant

CHARGED = [str(status) for status in (Status.CHARGED, Status.CANCELLING, Status.FULFILLED)]
ON_ITS_WAY_BACK = [str(status) for status in (Status.CANCELLING, Status.CANCELLED, Status.REJECTED)]
"""The charges of orders in these statuses are refunded, whatever their amount."""


def _uncompensated(status: Status) -> str:
    """Orders in a final status with a charge that is neither refunded nor about to be."""
    return f"""
        SELECT o.number FROM orders_order AS o
        JOIN orders_payment AS payment ON payment.order_id = o.id AND payment.status = 'succeeded'
        LEFT JOIN orders_refund AS refund ON refund.payment_id = payment.id AND refund.status = 'succeeded'
        WHERE o.status = '{status}' AND refund.id IS NULL
          AND o.finished_at < now() - %(patience)s
          AND (o.finished_at >= %(since)s OR payment.resolved_at >= %(since)s)
          AND NOT EXISTS (
              SELECT FROM outbox_outboxmessage AS message
              LEFT JOIN outbox_deadletter AS dead_letter
                ON dead_letter.message_id = message.id AND dead_letter.resolution = 'open'
              WHERE message.key = o.id::text AND message.event_name = '{contracts.ChargeStranded.name}'
                AND (message.status = 'pending' OR dead_letter.id IS NOT NULL
                     OR EXISTS (SELECT FROM outbox_delivery WHERE message_id = message.id)
                     OR message.not_before > now() - %(patience)s)
          )
    """  # noqa: S608 - names of our own


INVARIANTS = [
    Invariant(
        name="orders-are-charged-once",
        sentence=(
            "An order has at most one captured, unrefunded charge, and unless it is being cancelled, every "
            "charge is of its amount."
        ),
        sql=f"""
            SELECT o.number FROM orders_order AS o
            JOIN orders_payment AS payment ON payment.order_id = o.id
            LEFT JOIN orders_refund AS refund ON refund.payment_id = payment.id AND refund.status = 'succeeded'
            WHERE {RECENT}
            GROUP BY o.id
            HAVING count(*) FILTER (WHERE payment.status = 'succeeded' AND refund.id IS NULL) > 1
                OR bool_or(payment.amount_minor <> o.total_minor OR payment.currency <> o.currency)
                   AND o.status <> ALL(%(on_its_way_back)s)
        """,  # noqa: S608 - names of our own
        values=lambda: {"on_its_way_back": ON_ITS_WAY_BACK},
        command=TRACE,
    ),
    Invariant(
        name="shipped-orders-are-charged",
        sentence="An order that is charged, being cancelled, or shipped has a captured, unrefunded charge.",
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
        sentence="Every charge, refund and shipment that took effect has its time, and the provider's id.",
        sql="""
            SELECT idempotency_key FROM (
                SELECT idempotency_key, provider_id, resolved_at FROM orders_payment
                WHERE status = 'succeeded'
                UNION ALL
                SELECT idempotency_key, provider_id, resolved_at FROM orders_refund
                WHERE status = 'succeeded' AND given_back_by = ''
                UNION ALL
                SELECT idempotency_key, provider_id, resolved_at FROM orders_shipment
                WHERE status = 'shipped'
            ) AS effect
            WHERE (provider_id = '' OR resolved_at IS NULL)
              AND (resolved_at IS NULL OR resolved_at >= %(since)s)
        """,
        command="python manage.py verify --providers",
    ),
]
