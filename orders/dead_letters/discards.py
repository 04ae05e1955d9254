"""The work of orders behind dead letters: which order waits for one, and whether its step is done."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, Q
from django.db.models.functions import Now

from orders import moves, services
from orders.dead_letters import given_back
from orders.models import Order, Payment, Refund
from outbox.dead_letters import owners
from outbox.models import DeadLetter

PERMISSION = "orders.cancel_order"

WORKFLOWS = "orders.workflows."
"""The workflows that move an order. A dead letter without a workflow concerns all of its message's."""

BEFORE: dict[str, frozenset[moves.Status]] = {
    "orders.tasks.validate": frozenset({moves.Status.PLACED}),
    "orders.tasks.charge": moves.UNCHARGED,
    "orders.tasks.fulfill": moves.CANCELLABLE,
    "orders.tasks.cancel": moves.CANCELLABLE,
    "orders.tasks.refund": frozenset({moves.Status.CANCELLING}),
}
"""The statuses in which an order still needs the step."""

STRANDED = "orders.tasks.refund_stranded"

REFUND_DUE = frozenset({moves.Status.CANCELLING, moves.Status.CANCELLED, moves.Status.REJECTED})
"""The statuses in which a charge must be refunded."""


CANCEL = owners.Way(
    verb="cancel",
    option="cancel-orders",
    help="Cancel the orders that wait for these dead letters, and refund what was charged.",
    ends="cancels them as well",
    label="Cancel the orders that wait, and refund what was charged",
    note="Without this their dead letters stay open; the others are discarded.",
)
MARK_DONE = owners.Way(
    verb="mark_done",
    option="refunded-elsewhere",
    help="The customers were refunded by other means, which --reason describes. Ends the orders that wait for "
    "a refund, and records who decided that.",
    ends="ends those whose customers were refunded by other means",
    label="The customer was refunded by other means: end the orders that wait for a refund",
    note="Check the payment provider first. No further refund is requested; the reason and your name are "
    "stored with the refund.",
)


class Orders(owners.Owner):
    """The owner of dead letters of this app's steps."""

    ways = (CANCEL, MARK_DONE)

    def unfinished(self, dead_letters: Sequence[DeadLetter], *, lock: bool) -> dict[int, owners.Unfinished]:
        orders, owed = _orders(dead_letters, lock=lock), _owed(dead_letters)
        return {
            dead_letter.pk: owners.Unfinished(
                about=_about(order),
                can_be_cancelled=order.status in moves.CANCELLABLE and not order.cancel_requested_at,
                permission=PERMISSION,
                can_be_marked_done=dead_letter.key in owed and order.status in REFUND_DUE and not order.is_held,
            )
            for dead_letter in dead_letters
            if (order := orders.get(dead_letter.key))
            and (_waits_for_step(dead_letter, order) or _waits_for_refund(dead_letter, order, owed))
        }

    def cancel(self, dead_letters: Sequence[DeadLetter], *, by: str) -> None:
        for order in _orders(dead_letters, lock=True).values():
            if not order.cancel_requested_at:
                services.ask_to_cancel(order, requested_by=by)

    def mark_done(self, dead_letters: Sequence[DeadLetter], *, by: str, how: str) -> None:
        for order in _orders(dead_letters, lock=True).values():
            given_back.settle(order, by=by, how=how)

    def done(self, dead_letters: Sequence[DeadLetter]) -> dict[int, bool]:
        ours = [found for found in dead_letters if found.consumer in BEFORE or found.consumer == STRANDED]
        orders, owed = _orders(ours), _owed(ours)
        return {
            dead_letter.pk: dead_letter.key not in owed
            if dead_letter.consumer == STRANDED
            else order.status not in BEFORE[dead_letter.consumer]
            for dead_letter in ours
            if (order := orders.get(dead_letter.key))
        }


def _waits_for_step(dead_letter: DeadLetter, order: Order) -> bool:
    """Whether the order waits for the message of this dead letter."""
    is_ours = not dead_letter.workflow or dead_letter.workflow.startswith(WORKFLOWS)
    return is_ours and not order.is_final and dead_letter.message_id == order.message_id


def _waits_for_refund(dead_letter: DeadLetter, order: Order, owed: set[str]) -> bool:
    """
    Whether the dead letter is about a charge that succeeded after the order ended, and is not refunded yet.
    """
    return dead_letter.consumer == STRANDED and order.is_final and dead_letter.key in owed


def _about(order: Order) -> str:
    if order.is_final:
        return f"{order.number} is {order.get_status_display()}, and its charge is not refunded"
    if order.cancel_requested_at or order.status == moves.Status.CANCELLING:
        return f"{order.number} is being cancelled and waits for this step"
    return f"{order.number} is {order.get_status_display()}"


def _orders(dead_letters: Sequence[DeadLetter], *, lock: bool = False) -> dict[str, Any]:
    """The orders of the dead letters, by key; they are locked in a fixed order."""
    held = ExpressionWrapper(Q(lease_until__isnull=False, lease_until__gt=Now()), output_field=BooleanField())
    found = Order.objects.filter(pk__in=_ids(dead_letters)).annotate(is_held=held).order_by("pk")
    if lock:
        found = found.select_for_update(no_key=True)
    return {str(order.pk): order for order in found}


def _owed(dead_letters: Sequence[DeadLetter]) -> set[str]:
    """The orders that ended without shipping and whose charge is not refunded yet."""
    refunded = Q(refund__status=Refund.Status.SUCCEEDED)
    ids = _ids(dead_letters)
    charged = Payment.objects.filter(order__in=ids, status=Payment.Status.SUCCEEDED).exclude(refunded)
    return {str(pk) for pk in charged.values_list("order_id", flat=True)}


def _ids(dead_letters: Sequence[DeadLetter]) -> set[uuid.UUID]:
    return set(_uuids(dead_letter.key for dead_letter in dead_letters))


def _uuids(keys: Iterable[str]) -> Iterable[uuid.UUID]:
    for key in keys:
        with contextlib.suppress(ValueError):
            yield uuid.UUID(key)
