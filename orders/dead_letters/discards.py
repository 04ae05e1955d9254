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

GIVEN_BACK = frozenset({moves.Status.CANCELLING, moves.Status.CANCELLED, moves.Status.REJECTED})
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

    def unfinished(self, letters: Sequence[DeadLetter], *, lock: bool) -> dict[int, owners.Unfinished]:
        orders, owed = _orders(letters, lock=lock), _owed(letters)
        return {
            letter.pk: owners.Unfinished(
                about=_about(order),
                can_be_cancelled=order.status in moves.CANCELLABLE and not order.cancel_requested_at,
                permission=PERMISSION,
                can_be_marked_done=letter.key in owed and order.status in GIVEN_BACK and not order.is_held,
            )
            for letter in letters
            if (order := orders.get(letter.key))
            and (_moves_on(letter, order) or _gives_back(letter, order, owed))
        }

    def cancel(self, letters: Sequence[DeadLetter], *, by: str) -> None:
        for order in _orders(letters, lock=True).values():
            if not order.cancel_requested_at:
                services.ask_to_cancel(order, requested_by=by)

    def mark_done(self, letters: Sequence[DeadLetter], *, by: str, how: str) -> None:
        for order in _orders(letters, lock=True).values():
            given_back.settle(order, by=by, how=how)

    def done(self, letters: Sequence[DeadLetter]) -> dict[int, bool]:
        ours = [letter for letter in letters if letter.consumer in BEFORE or letter.consumer == STRANDED]
        orders, owed = _orders(ours), _owed(ours)
        return {
            letter.pk: letter.key not in owed
            if letter.consumer == STRANDED
            else order.status not in BEFORE[letter.consumer]
            for letter in ours
            if (order := orders.get(letter.key))
        }


def _moves_on(letter: DeadLetter, order: Order) -> bool:
    """Whether the order waits for the message of this dead letter."""
    is_ours = not letter.workflow or letter.workflow.startswith(WORKFLOWS)
    return is_ours and not order.is_final and letter.message_id == order.message_id


def _gives_back(letter: DeadLetter, order: Order, owed: set[str]) -> bool:
    """
    Whether the dead letter is about a charge that succeeded after the order ended, and is not refunded yet.
    """
    return letter.consumer == STRANDED and order.is_final and letter.key in owed


def _about(order: Order) -> str:
    if order.is_final:
        return f"{order.number} is {order.get_status_display()}, and its charge is not refunded"
    if order.cancel_requested_at or order.status == moves.Status.CANCELLING:
        return f"{order.number} is being cancelled and waits for this step"
    return f"{order.number} is {order.get_status_display()}"


def _orders(letters: Sequence[DeadLetter], *, lock: bool = False) -> dict[str, Any]:
    """The orders of the dead letters, by key; they are locked in a fixed order."""
    held = ExpressionWrapper(Q(lease_until__isnull=False, lease_until__gt=Now()), output_field=BooleanField())
    found = Order.objects.filter(pk__in=_ids(letters)).annotate(is_held=held).order_by("pk")
    if lock:
        found = found.select_for_update(no_key=True)
    return {str(order.pk): order for order in found}


def _owed(letters: Sequence[DeadLetter]) -> set[str]:
    """The orders that ended without shipping and whose charge is not refunded yet."""
    refunded = Q(refund__status=Refund.Status.SUCCEEDED)
    charged = Payment.objects.filter(order__in=_ids(letters), status=Payment.Status.SUCCEEDED).exclude(refunded)
    return {str(pk) for pk in charged.values_list("order_id", flat=True)}


def _ids(letters: Sequence[DeadLetter]) -> set[uuid.UUID]:
    return set(_uuids(letter.key for letter in letters))


def _uuids(keys: Iterable[str]) -> Iterable[uuid.UUID]:
    for key in keys:
        with contextlib.suppress(ValueError):
            yield uuid.UUID(key)
