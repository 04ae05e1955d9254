"""
Moving an order to another status: guarded by its version, recorded in its history, and due again unless final.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import connection
from django.db.models import Value
from django.db.models.functions import Now

from orders import moves
from orders.models import Order, OrderTransition
from outbox import context, crash_points, publisher, telemetry
from outbox.contracts import Event

STEP_DEADLINE = dt.timedelta(seconds=6)
"""How long after one step the next one may begin. After that, the sweep starts the rest of the chain again. An
idle system needs milliseconds; the sweep allows for the time that messages wait in long queues."""

LEASE = dt.timedelta(seconds=8)
"""How long a step may hold an order: one provider call, with 2 seconds to connect and 5 to answer, and some
database work. `extend` precedes a second call. A worker that dies while it holds an order delays the order by
at most this time and one sweep."""


class Fenced(Exception):
    """Another worker has moved the order on since this step began; the result of this step came too late."""


@dataclasses.dataclass(frozen=True)
class Also:
    """
    A change that belongs to the move of an order, and is made in the same statement.

    `sql` is an UPDATE or INSERT that does nothing unless `moved` has a row.
    """

    sql: str
    values: Mapping[str, Any]


def move(
    order: Order,
    *,
    to: moves.Status,
    note: str = "",
    reason: str = "",
    message_id: uuid.UUID | None = None,
    also: Sequence[Also] = (),
) -> None:
    """
    Move `order`, as it was read or claimed, and record the move in its history, in one statement.

    `message_id` names the message that continues the order, if the step publishes one. Otherwise the order
    keeps its current one, which may be newer than the one that was read: a request for cancellation does not
    change the version. Other changes belong in the caller's transaction, or in `also`: changes of other tables,
    at most one for each table.

    Raises:
        Fenced: if its version is no longer the one that was read.
        orders.moves.IllegalMove: if `to` cannot follow its status.
    """
    before, work = moves.Status(order.status), context.current()
    moves.check(before=before, after=to)
    values: dict[str, Any] = {
        "id": order.pk,
        "version": order.version,
        "before": str(before),
        "to": str(to),
        "wait": None if to in moves.FINAL else STEP_DEADLINE,
        "reason": reason,
        "message_id": message_id,
        "cause": work.causation_id or None,
        "task": work.task,
        "actor": work.actor,
        "note": note or reason,
    }
    with connection.cursor() as cursor:
        for change in also:
            values |= change.values
        cursor.execute(_with(*(change.sql for change in also)), values)
        moved = cursor.fetchone()
    if moved is None:
        raise Fenced(f"{order.number} is no longer at version {order.version}")
    telemetry.emit("order.moved", order_id=str(order.pk), before=str(before), after=str(to))
    order.status, order.version, order.lease_until = to, order.version + 1, None
    order.reason, order.message_id = moved


MOVED = f"""
moved AS (
    UPDATE {Order._meta.db_table}
    SET status = %(to)s,
        version = version + 1,
        lease_until = NULL,
        resumptions = 0,
        due_at = statement_timestamp() + %(wait)s::interval,
        finished_at = CASE WHEN %(wait)s::interval IS NULL THEN statement_timestamp() END,
        reason = coalesce(nullif(%(reason)s::text, ''), reason),
        message_id = coalesce(%(message_id)s::uuid, message_id)
    WHERE id = %(id)s AND version = %(version)s
    RETURNING id, reason, message_id
)
"""  # noqa: S608 - our own tables

NOTE = f"""
INSERT INTO {OrderTransition._meta.db_table} (order_id, from_status, to_status, message_id, task, actor, note)
SELECT id, %(before)s, %(to)s, %(cause)s, %(task)s, %(actor)s, %(note)s FROM moved
RETURNING (SELECT reason FROM moved), (SELECT message_id FROM moved)
"""  # noqa: S608 - our own tables


@functools.cache
def _with(*also: str) -> str:
    changes = [f"also_{number} AS ({sql})" for number, sql in enumerate(also)]
    return f"WITH {', '.join([MOVED, *changes])} {NOTE}"


def publishing(event: Event) -> Also:
    """
    Return the change that publishes an event, to be made with the order's move.

    Raises:
        outbox.publisher.NotInTransaction: if no transaction is open.
    """
    sql, values = publisher.statement([event])
    return Also(f"{sql} WHERE EXISTS (SELECT FROM moved)", values)


def placed(order: Order) -> OrderTransition:
    """Return the first entry in the history of an order that is being placed, to be saved with the order."""
    work = context.current()
    return OrderTransition(
        order=order,
        to_status=order.status,
        message_id=uuid.UUID(work.causation_id) if work.causation_id else None,
        task=work.task,
        actor=work.actor,
    )


def extend(order: Order) -> None:
    """
    Hold a claimed order for another lease, before another call.

    Raises:
        Fenced: if another worker has taken it meanwhile. The call must not be made then.
    """
    held_on = Order.objects.filter(pk=order.pk, version=order.version).update(
        lease_until=Now() + Value(LEASE), due_at=Now() + Value(LEASE)
    )
    if not held_on:
        raise Fenced(f"{order.number} is no longer at version {order.version}")


def let_go(order: Order) -> None:
    """End a claim without a move, so that the next attempt need not wait for the lease."""
    Order.objects.filter(pk=order.pk, version=order.version).update(
        lease_until=None, due_at=Now() + Value(STEP_DEADLINE)
    )


@contextlib.contextmanager
def held(order: Order) -> Iterator[None]:
    """Release the claim if the call to the provider fails, so that the next attempt finds the order free."""
    try:
        yield
    except BaseException:
        crash_points.reached("step.call_failed")
        let_go(order)
        crash_points.reached("step.let_go")
        raise


@contextlib.contextmanager
def fence(step: str) -> Iterator[None]:
    """End a step without an error if another worker overtook it. Its transaction is rolled back."""
    try:
        yield
    except Fenced as fenced:
        telemetry.emit("step.fenced", step=step, detail=str(fenced))
