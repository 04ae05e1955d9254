"""
Orders that need a person: a step was given up, and the order continues only after a decision. Or the message
that moves them is parked until code that can read it is deployed. Or their charge is only reserved until
somebody captures or cancels it at the provider.

A notification that was given up does not block its order, and does not count here. A dead letter that was
discarded without its order, as older versions and manual changes do, does count: nothing starts that order
again.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from django.db.models import Case, Exists, OuterRef, Q, QuerySet, UUIDField, When
from django.db.models.functions import Cast

from orders import moves
from orders.models import Order, Payment
from outbox.models import DeadLetter, DeadLetterQuerySet, OutboxMessage

STEPS = Q(consumer__startswith="orders.") | (
    Q(consumer__startswith="outbox.") & (Q(workflow="") | Q(workflow__startswith="orders.workflows."))
)
"""The consumers of dead letters of steps, and of messages that never reached a step."""

AN_ID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


DISCARDED = Q(resolution=DeadLetter.Resolution.DISCARDED)


def dead_letters_of(order: Order) -> DeadLetterQuerySet:
    """The dead letters that require a decision before the order continues, newest first."""
    found = Q(resolution=DeadLetter.Resolution.OPEN)
    if not order.is_final:
        found |= DISCARDED & Q(message_id=order.message_id)
    return DeadLetter.objects.filter(found, STEPS, ~_has_a_newer_one(), key=str(order.pk)).order_by("-pk")


def _has_a_newer_one() -> Exists:
    """Whether there is a newer dead letter of the same consumer and message than a discarded one."""
    newer = DeadLetter.objects.filter(
        message_id=OuterRef("message_id"), consumer=OuterRef("consumer"), pk__gt=OuterRef("pk")
    )
    return Exists(newer)


def _given_up() -> QuerySet[Order]:
    """Unfinished orders that wait for a step whose dead letter is discarded."""
    ended = DeadLetter.objects.filter(DISCARDED, STEPS, ~_has_a_newer_one(), message_id=OuterRef("message_id"))
    return Order.objects.filter(Exists(ended), due_at__isnull=False)


def is_needed(order: Order) -> bool:
    """Return whether the order needs a person."""
    return dead_letters_of(order).exists() or parked(order) is not None or held_charge(order) is not None


def parked(order: Order) -> OutboxMessage | None:
    """Return the message that moves the order, if it is parked."""
    return None if order.is_final else _parked().filter(pk=order.message_id).first()


def held_charge(order: Order) -> Payment | None:
    """
    The charge that somebody must decide at the provider. For an order to be cancelled it is cancelled by us.
    """
    if not _may_be_held(order):
        return None
    return next((payment for payment in order.payments.all() if payment.is_held), None)


def _may_be_held(order: Order) -> bool:
    return order.status == moves.Status.CHARGE_UNKNOWN and not order.cancel_requested_at


def _held() -> QuerySet[Payment]:
    return Payment.objects.filter(
        held_since__isnull=False,
        resolved_at__isnull=True,
        order__status=moves.Status.CHARGE_UNKNOWN,
        order__cancel_requested_at__isnull=True,
    )


def why(order: Order) -> str:
    """Return what a person has to do for the order, if there is no dead letter that shows it."""
    if message := parked(order):
        return (
            f"Its message is parked: {message.last_error}. It is delivered automatically once code is deployed "
            "that can read it."
        )
    if payment := held_charge(order):
        return (
            f"Its charge is reserved at the payment provider since {payment.held_since:%Y-%m-%d %H:%M} UTC: "
            f"capture or cancel it there ({payment.error.partition(': ')[0]}). Then the order continues."
        )
    return ""


def _parked() -> QuerySet[OutboxMessage]:
    return OutboxMessage.objects.filter(status=OutboxMessage.Status.PARKED)


def needed_by(orders: Sequence[Order]) -> set[uuid.UUID]:
    """Return those of the orders that need a person."""
    unfinished = {str(order.pk): order.message_id for order in orders if not order.is_final}
    keys = {str(order.pk) for order in orders}
    discarded = DISCARDED & ~_has_a_newer_one() & Q(message_id__in=unfinished.values())
    found = DeadLetter.objects.filter(Q(resolution=DeadLetter.Resolution.OPEN) | discarded, STEPS, key__in=keys)
    undecided = [order.pk for order in orders if _may_be_held(order)]
    parked = set(_parked().filter(pk__in=unfinished.values()).values_list("pk", flat=True))
    return {
        *(uuid.UUID(key) for key in found.values_list("key", flat=True)),
        *(order.pk for order in orders if not order.is_final and order.message_id in parked),
        *_held().filter(order__in=undecided).values_list("order_id", flat=True),
    }


def waiting(orders: QuerySet[Order]) -> QuerySet[Order]:
    """Return those of the orders that need a person, starting from the causes, which are fewer."""
    ids = Case(When(key__regex=AN_ID, then=Cast("key", UUIDField())))
    waiting = DeadLetter.objects.open().filter(STEPS).values(order=ids)
    unread = Order.objects.filter(due_at__isnull=False, message_id__in=_parked().values("pk"))
    others = (_given_up().values("pk"), unread.values("pk"), _held().values("order_id"))
    return orders.filter(pk__in=waiting.union(*others, all=True))
