"""
Charges that a person has refunded by other means, because the provider would not.

Only the books change here: the provider is not called. If it refunds the charge as well, the comparison with
its records reports that (`orders.reconciliation.comparison`).
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
    Record who refunded the charge of an order, and how; an order that is being cancelled ends with it.

    Runs in the caller's transaction, in which the order is locked and known to have an unrefunded charge. No
    `OrderRefunded` is published, because that promises the money on the card that was charged.
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
