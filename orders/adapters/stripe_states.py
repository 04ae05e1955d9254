"""
The meaning of the statuses of Stripe's objects that we read, one table per object.

A status that is in no table is an unknown outcome.
Sources: docs.stripe.com/payments/paymentintents/lifecycle, docs.stripe.com/api/payment_intents/cancel,
docs.stripe.com/refunds. Charges and disputes are not read: a PaymentIntent contains the result of its charge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from orders.ports import ChargeState, OutcomeUnknown, RefundState
from outbox.database import storable

LONGEST_STATUS = 50
"""Length of an unknown status that an error quotes."""

State = TypeVar("State", ChargeState, RefundState)

INTENTS = {
    "succeeded": ChargeState.CAPTURED,
    # Nothing is captured without another confirmation, and only we could send one.
    "requires_payment_method": ChargeState.REFUSED,
    "canceled": ChargeState.REFUSED,
    # The bank decides. Stripe can cancel such an intent only in rare cases.
    "processing": ChargeState.PENDING,
    # The money is reserved and must be captured by hand; after seven days Stripe cancels it automatically.
    "requires_capture": ChargeState.HELD,
    # It needs the customer, who is no longer present.
    "requires_action": ChargeState.UNFINISHED,
    "requires_confirmation": ChargeState.UNFINISHED,
}

REFUNDS = {
    "succeeded": RefundState.DONE,
    # Stripe waits for the bank, or for our own balance.
    "pending": RefundState.PENDING,
    # Stripe waits for the customer, whom it has e-mailed.
    "requires_action": RefundState.PENDING,
    "failed": RefundState.FAILED,
    "canceled": RefundState.FAILED,
}

WORDS = {
    "requires_payment_method": "the card was declined",
    "canceled": "the payment was cancelled before it was completed",
    "processing": "the payment is being processed",
    "requires_capture": "the amount is reserved but not captured; capture or cancel it at Stripe",
    "requires_action": "the bank wants its customer to confirm the payment",
    "requires_confirmation": "the payment was never confirmed",
}
"""The descriptions of statuses; customers read those of refusals."""


def of_intent(status: str) -> ChargeState:
    """
    Raises:
        OutcomeUnknown: if this status is not in the table.
    """
    return _of(INTENTS, "payment intent", status)


def of_refund(status: str) -> RefundState:
    """
    Raises:
        OutcomeUnknown: if this status is not in the table.
    """
    return _of(REFUNDS, "refund", status)


def _of(table: Mapping[str, State], what: str, status: str) -> State:
    try:
        return table[status]
    except (KeyError, TypeError) as unknown:
        raise OutcomeUnknown(
            f"Stripe's {what} is {storable.text(status, longest=LONGEST_STATUS)!r}, which is an unknown status"
        ) from unknown
