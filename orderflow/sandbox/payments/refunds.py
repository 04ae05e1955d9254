"""Refunds: in any number of parts, but never more than was paid."""

from __future__ import annotations

import time
from typing import Any

from . import parameters
from .errors import StripeError
from .intents import Intent, new_id
from .parameters import Parameters

REFUND_PARAMETERS = frozenset(
    ("amount", "charge", "expand", "metadata", "payment_intent", "reason", "reverse_transfer")
)
UNDONE = ("failed", "canceled")
"""Refunds that returned nothing; the amount can be refunded again."""
REASONS = ("duplicate", "fraudulent", "requested_by_customer")


def create(intent: Intent, params: Parameters, *, state: str | None = None) -> dict[str, Any]:
    """
    Refund the rest of a payment, or a part of it, and record that in the intent.

    Args:
        state: the status of the refund; None: it succeeds.

    Raises:
        StripeError: if nothing was paid, or less than the amount is left.
    """
    reason = parameters.choice(params, "reason", REASONS)
    if intent["status"] != "succeeded":
        raise StripeError(
            400, f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund."
        )
    left = intent["amount_received"] - intent["amount_refunded"]
    if left == 0:
        raise StripeError(
            400, f"Charge {intent['latest_charge']} has already been refunded.", code="charge_already_refunded"
        )
    amount = parameters.amount(params) or left
    if amount > left:
        currency = intent["currency"].upper()
        raise StripeError(
            400,
            f"Refund amount ({amount} {currency}) is greater than unrefunded amount on charge"
            f" ({left} {currency})",
            code="amount_too_large",
            param="amount",
        )
    status = state or "succeeded"
    intent["amount_refunded"] += 0 if status in UNDONE else amount
    reference = {"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"}
    return {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": new_id("txn"),
        "charge": intent["latest_charge"],
        "created": int(time.time()),
        "currency": intent["currency"],
        "destination_details": {"card": reference, "type": "card"},
        "failure_reason": "lost_or_stolen_card" if status == "failed" else None,
        "metadata": parameters.metadata(params),
        "payment_intent": intent["id"],
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": status,
        "transfer_reversal": None,
    }
