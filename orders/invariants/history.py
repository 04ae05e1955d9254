"""An order's history and its own data: moves, leases, idempotency records, totals."""

from __future__ import annotations

import datetime as dt

from orders import moves
from orders.invariants.patience import RECENT, TRACE
from orders.moves import Status
from orders.transitions import LEASE
from outbox.verification.catalogue import Invariant

ASSIGN = "python manage.py api_client assign_orders"

CLOCKS_DIFFER = dt.timedelta(seconds=30)
"""How far the time of a statement may be ahead of the snapshot's."""


def _legal_moves() -> list[str]:
    following = [f"{before}>{after}" for before, afters in moves.MOVES.items() for after in afters]
    return [f">{Status.PLACED}", *following]


INVARIANTS = [
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
            ) AS moves
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
        name="orders-have-their-client",
        sentence="Every order belongs to the API client whose idempotency key has placed it, and to no other.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            JOIN orders_idempotencyrecord AS record ON record.order_id = o.id
            LEFT JOIN orders_apiclient AS client ON record.scope = 'api:' || client.id
            WHERE o.client_id IS DISTINCT FROM client.id AND {RECENT}
        """,  # noqa: S608 - names of our own
        command=ASSIGN,
    ),
    Invariant(
        name="totals-are-sums",
        sentence="The total of every validated order is the sum of its lines, where these are known.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            LEFT JOIN orders_orderline AS line ON line.order_id = o.id
            WHERE o.status NOT IN ('placed', 'rejected', 'cancelled') AND {RECENT}
            GROUP BY o.id
            HAVING o.total_minor <> coalesce(sum(line.quantity * line.unit_price_minor), 0)
               AND (o.source <> 'restore' OR count(line.id) > 0)
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
]
