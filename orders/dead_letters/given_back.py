"""
Charges that a person has given back by other means, because the provider would not.

Only the books change here: the provider is not asked. If it gives the money back all the same, the comparison
with its own list says so (`orders.reconciliation.comparison`).
"""

from __future__ import annotations

import dataclasses

from django.db.models.functions import Now

from orders import contracts, effects, moves, stock
from orders.models import Order, Payment, Refund
from orders.transitions import move
from outbox import context, publisher


def settle(order: Order, *, by: str, how: str) -> None:
    """
    Note who gave the charge of an order back, and how; an order that is being cancelled has ended with it.

    Runs in the transaction of the caller, who has locked the order and knows that a charge is owed. Nothing is
    published as `OrderRefunded`, which promises the money on the card that was charged.
    """
    payment = Payment.objects.get(order=order, status=Payment.Status.SUCCEEDED)
    Refund.objects.update_or_create(
        payment=payment,
        defaults={
            "status": Refund.Status.SUCCEEDED,
            "given_back_by": by[:200],
            "given_back_how": how,
            "resolved_at": Now(),
        },
        create_defaults={
            "idempotency_key": effects.refund_key(order.pk),
            "amount_minor": payment.amount_minor,
            "currency": payment.currency,
            "status": Refund.Status.SUCCEEDED,
            "given_back_by": by[:200],
            "given_back_how": how,
            "resolved_at": Now(),
        },
    )
    if order.status == moves.Status.CANCELLING:
        with context.bind(dataclasses.replace(context.current(), actor=by[:200])):
            _end(order)


def _end(order: Order) -> None:
    stock.release(order)
    move(order, to=moves.Status.CANCELLED, note="refunded by other means")
    publisher.publish(contracts.OrderCancelled.of(order, reason=order.reason))
