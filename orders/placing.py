"""
The two statements that place orders, one or many: the first reads what must be known, the second writes all
rows.

`services` decides which orders are allowed; this module only queries and stores.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from django.db import IntegrityError, connection

from orders.models import IdempotencyRecord, Order, OrderLine, OrderTransition, Product
from outbox.database.statements import Table
from outbox.models import OutboxMessage


class KeyTaken(Exception):
    """A request with the same key was committed between our query and our lock. Query again to find it."""


class Record(NamedTuple):
    """What an idempotency key has done before."""

    order_id: str
    fingerprint: str
    answer: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """An idempotency key: whether we hold it, its earlier effect, and otherwise the number for its order."""

    held: bool
    record: Record | None
    number: int | None
    """None also if a product is missing: no number is used up by an order that cannot be placed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """What the database contains before orders are placed."""

    now: dt.datetime
    products: dict[str, Product]
    """By SKU; without their stock, which other transactions change."""
    keys: list[Key]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """All the rows of one order, unsaved."""

    order: Order
    lines: Sequence[OrderLine]
    transition: OrderTransition
    message: OutboxMessage
    record: IdempotencyRecord


PRODUCT = ("id", "sku", "name", "price_minor", "currency")

ASK = f"""
WITH product AS MATERIALIZED (
    SELECT {", ".join(PRODUCT)} FROM {Product._meta.db_table} WHERE sku = ANY(%(skus)s)
), wanted AS MATERIALIZED (
    SELECT scope, key, position, pg_try_advisory_xact_lock(hashtextextended(lock, 0)) AS held
    FROM unnest(%(scopes)s::text[], %(keys)s::text[], %(locks)s::text[])
        WITH ORDINALITY AS wanted (scope, key, lock, position)
    LIMIT %(limit)s
)
SELECT
    statement_timestamp(),
    (SELECT json_agg(json_build_array({", ".join(PRODUCT)})) FROM product),
    (
        SELECT json_agg(json_build_array(
            held, record.order_id, record.fingerprint, record.answer,
            CASE WHEN held AND record.id IS NULL AND (SELECT count(*) FROM product) = %(products)s
                 THEN nextval('orders_number') END
        ) ORDER BY position)
        FROM wanted LEFT JOIN LATERAL (
            SELECT id, order_id, fingerprint, answer FROM {IdempotencyRecord._meta.db_table}
            WHERE scope = wanted.scope AND key = wanted.key OFFSET 0
        ) AS record ON TRUE
    )
"""  # noqa: S608 - our own tables
# Records are looked up one by one: a session that plans this while there are few would join the whole table.
# The limit excludes nothing. PostgreSQL expects one key then; expecting ten, it would plan this each time.

MESSAGES, ORDERS = Table(OutboxMessage), Table(Order, frozenset({"placed_at"}))
LINES, TRANSITIONS, RECORDS = Table(OrderLine), Table(OrderTransition), Table(IdempotencyRecord)

WRITE = f"""
WITH messages AS ({MESSAGES.insert("messages")}),
    orders AS ({ORDERS.insert("orders")}),
    lines AS ({LINES.insert("lines")}),
    transitions AS ({TRANSITIONS.insert("transitions")})
{RECORDS.insert("records")}
"""


def ask(keys: Sequence[tuple[str, str]], skus: Iterable[str]) -> Known:
    """
    Try to hold the keys, pairs of scope and key, until the transaction ends, and read their records.

    Advisory locks instead of rows, so that a crash leaves nothing behind. The records are as old as the
    statement, so another request may have used and released a key that we then hold; `write` detects that.
    """
    wanted = sorted(set(skus))
    values: dict[str, Any] = {
        "scopes": [scope for scope, _ in keys],
        "keys": [key for _, key in keys],
        "locks": [f"{scope}\x1f{key}" for scope, key in keys],
        "limit": len(keys),
        "skus": wanted,
        "products": len(wanted),
    }
    with connection.cursor() as cursor:
        cursor.execute(ASK, values)
        now, products, found = cursor.fetchone()
    return Known(
        now=now,
        products={row[1]: Product.from_db(connection.alias, PRODUCT, row) for row in products or ()},
        keys=[
            Key(held=held, record=Record(order, fingerprint, answer) if order else None, number=number)
            for held, order, fingerprint, answer, number in found
        ],
    )


def write(drafts: Sequence[Draft]) -> None:
    """
    Write all rows of all orders.

    Raises:
        KeyTaken: if a key was used since it was queried; the transaction is lost.
    """
    values = {
        "messages": MESSAGES.as_json(draft.message for draft in drafts),
        "orders": ORDERS.as_json(draft.order for draft in drafts),
        "lines": LINES.as_json(line for draft in drafts for line in draft.lines),
        "transitions": TRANSITIONS.as_json(draft.transition for draft in drafts),
        "records": RECORDS.as_json(draft.record for draft in drafts),
    }
    try:
        with connection.cursor() as cursor:
            cursor.execute(WRITE, values)
    except IntegrityError as error:
        if _constraint(error) == "one_order_per_key":
            raise KeyTaken from error
        raise
    for draft in drafts:
        draft.order._state.adding, draft.order._state.db = False, connection.alias


def _constraint(error: IntegrityError) -> str | None:
    """The name of the violated constraint."""
    name: str | None = getattr(getattr(error.__cause__, "diag", None), "constraint_name", None)
    return name
