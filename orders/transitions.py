"""
Moving an order: guarded by version, noted in its history, and due again unless it is final.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

from django.db.models import F, Value
from django.db.models.functions import Now

from orders import moves
from orders.models import Order, OrderTransition
from outbox import context, crash_points, telemetry

STEP_DEADLINE = dt.timedelta(seconds=10)
"""How long after one step the next one may begin. Later the sweep starts the rest of the chain again;
an idle system needs milliseconds."""

LEASE = dt.timedelta(seconds=8)
"""How long a step may hold an order: one provider call, of 2 seconds to connect and 5 to answer, and some
database work. A second call is preceded by `extend`. A worker that died holding an order delays it by
no more than this and one sweep."""


class Fenced(Exception):
    """Somebody else moved the order on since this step began; what it found out came too late."""


def move(order: Order, *, to: moves.Status, note: str = "", reason: str = "", **changes: Any) -> None:
    """
    Move `order`, as it was read or claimed, within the caller's transaction.

    Raises:
        Fenced: if its version is no longer the one that was read.
        orders.moves.IllegalMove: if `to` cannot follow its status.
    """
    before = moves.Status(order.status)
    moves.check(before=before, after=to)
    final = to in moves.FINAL
    if reason:
        changes["reason"] = reason
    changed = Order.objects.filter(pk=order.pk, version=order.version).update(
        status=to,
        version=F("version") + 1,
        lease_until=None,
        resumptions=0,
        due_at=None if final else Now() + Value(STEP_DEADLINE),
        finished_at=Now() if final else None,
        **changes,
    )
    if not changed:
        raise Fenced(f"{order.number} is no longer at version {order.version}")
    record(order, before=before, after=to, note=note or reason)
    order.status, order.version, order.lease_until = to, order.version + 1, None
    for name, value in changes.items():
        setattr(order, name, value)


def record(order: Order, *, before: str, after: moves.Status, note: str = "") -> None:
    """Append a move to the order's history, with who and what did it."""
    work = context.current()
    OrderTransition.objects.create(
        order=order,
        from_status=before,
        to_status=after,
        message_id=uuid.UUID(work.causation_id) if work.causation_id else None,
        task=work.task,
        actor=work.actor,
        note=note,
    )
    telemetry.emit("order.moved", order_id=str(order.pk), before=before, after=str(after))


def extend(order: Order) -> None:
    """
    Hold a claimed order for another lease, before another call.

    Raises:
        Fenced: if somebody else has taken it meanwhile; then the call must not be made.
    """
    held_on = Order.objects.filter(pk=order.pk, version=order.version).update(
        lease_until=Now() + Value(LEASE), due_at=Now() + Value(LEASE)
    )
    if not held_on:
        raise Fenced(f"{order.number} is no longer at version {order.version}")


def let_go(order: Order) -> None:
    """End a claim without a move, so that the next try need not wait for the lease."""
    Order.objects.filter(pk=order.pk, version=order.version).update(
        lease_until=None, due_at=Now() + Value(STEP_DEADLINE)
    )


@contextlib.contextmanager
def held(order: Order) -> Iterator[None]:
    """Let go of the claim when the outside call fails, so that the next try finds the order free."""
    try:
        yield
    except BaseException:
        crash_points.reached("step.call_failed")
        let_go(order)
        crash_points.reached("step.let_go")
        raise


@contextlib.contextmanager
def fence(step: str) -> Iterator[None]:
    """End a step quietly that somebody else overtook; its transaction is rolled back."""
    try:
        yield
    except Fenced as fenced:
        telemetry.emit("step.fenced", step=step, detail=str(fenced))
