"""
Payment intents: created, confirmed, cancelled. A declined card is a stored outcome, like a successful one.
"""

from __future__ import annotations

import re
import secrets
import string
import time
from typing import Any

from . import cards, errors, parameters
from .cards import Card
from .errors import StripeError
from .parameters import Parameters

Intent = dict[str, Any]

ALPHABET = string.ascii_letters + string.digits
CREATE_PARAMETERS = frozenset(
    re.findall(
        r"\w+",
        """
        amount application_fee_amount automatic_payment_methods capture_method confirm confirmation_method
        currency customer description error_on_requires_action expand mandate metadata off_session on_behalf_of
        payment_method payment_method_configuration payment_method_options payment_method_types radar_options
        receipt_email return_url setup_future_usage shipping statement_descriptor statement_descriptor_suffix
        transfer_data transfer_group use_stripe_sdk
        """,
    )
)
CONFIRM_PARAMETERS = frozenset(
    re.findall(
        r"\w+",
        """
        error_on_requires_action expand mandate off_session payment_method payment_method_options
        payment_method_types radar_options receipt_email return_url setup_future_usage shipping use_stripe_sdk
        """,
    )
)
CANCEL_PARAMETERS = frozenset(("cancellation_reason", "expand"))
CANCELLATION_REASONS = ("abandoned", "duplicate", "fraudulent", "requested_by_customer")
OPEN = ("requires_payment_method", "requires_confirmation", "requires_action")
CANCELLABLE = (*OPEN, "requires_capture")

# Stored in the ledger, unknown to Stripe's API.
LEDGER_ONLY = ("amount_refunded",)


def new_id(prefix: str) -> str:
    return f"{prefix}_{''.join(secrets.choice(ALPHABET) for _ in range(24))}"


def public(intent: Intent) -> Intent:
    """Return the fields of an intent that the API shows."""
    return {name: value for name, value in intent.items() if name not in LEDGER_ONLY}


def create(params: Parameters, *, state: str | None = None) -> Intent:
    """
    Create an intent, and pay it if `confirm` is set.

    Args:
        state: the status after paying; None: as its card decides.

    Raises:
        StripeError: if the parameters are invalid. Nothing has happened then.
    """
    cards.refuse_card_numbers(params)
    parameters.refuse_unknown(params, CREATE_PARAMETERS)
    amount = parameters.amount(params)
    if amount is None:
        raise errors.missing("amount")
    currency = parameters.currency(params)
    parameters.refuse_uncharged(amount, currency)
    if parameters.text(params, "capture_method") == "manual":
        raise StripeError(
            400, "The sandbox captures at once; it knows no manual capture.", param="capture_method"
        )
    method = parameters.text(params, "payment_method")
    automatic = _automatic_payment_methods(params)
    intent: Intent = {
        "id": new_id("pi"),
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_received": 0,
        "amount_refunded": 0,
        "automatic_payment_methods": automatic,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic_async",
        "client_secret": "",
        "confirmation_method": "automatic",
        "created": int(time.time()),
        "currency": currency,
        "customer": parameters.text(params, "customer"),
        "description": parameters.text(params, "description"),
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": parameters.metadata(params),
        "next_action": None,
        "payment_method": cards.card(method).id if method else None,
        "payment_method_types": parameters.list_of(params, "payment_method_types") or ["card"],
        "processing": None,
        "receipt_email": parameters.text(params, "receipt_email"),
        "shipping": params.get("shipping"),
        "statement_descriptor": parameters.text(params, "statement_descriptor"),
        "statement_descriptor_suffix": parameters.text(params, "statement_descriptor_suffix"),
        "status": "requires_confirmation" if method else "requires_payment_method",
        "transfer_group": parameters.text(params, "transfer_group"),
    }
    intent["client_secret"] = f"{intent['id']}_secret_{secrets.token_hex(12)}"
    if parameters.flag(params, "confirm"):
        _require_return_url(params, automatic)
        _pay(intent, state)
    return intent


def confirm(intent: Intent, params: Parameters) -> Intent:
    """
    Pay an intent that was created without payment, or was declined.

    Raises:
        StripeError: if it can no longer be paid, or the parameters are invalid.
    """
    cards.refuse_card_numbers(params)
    parameters.refuse_unknown(params, CONFIRM_PARAMETERS)
    if intent["status"] not in OPEN:
        raise _unexpected_state(intent, "confirm")
    if method := parameters.text(params, "payment_method"):
        intent["payment_method"] = cards.card(method).id
    _pay(intent)
    return intent


def cancel(intent: Intent, params: Parameters) -> Intent:
    """
    Cancel an intent that has not been paid.

    Raises:
        StripeError: if it has already been paid or cancelled.
    """
    parameters.refuse_unknown(params, CANCEL_PARAMETERS)
    reason = parameters.choice(params, "cancellation_reason", CANCELLATION_REASONS)
    if intent["status"] not in CANCELLABLE:
        raise _unexpected_state(intent, "cancel")
    return intent | {"status": "canceled", "canceled_at": int(time.time()), "cancellation_reason": reason}


def declined(intent: Intent) -> StripeError:
    """Return the error for a declined payment, with the intent in it as Stripe has it."""
    error = dict(intent["last_payment_error"])
    return StripeError(
        402,
        error.pop("message"),
        kind=error.pop("type"),
        code=error.pop("code"),
        param=error.pop("param", None),
        details=error | {"payment_intent": public(intent)},
    )


def _pay(intent: Intent, state: str | None = None) -> None:
    if not intent["payment_method"]:
        raise StripeError(
            400,
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            code="payment_intent_unexpected_state",
        )
    card = cards.card(intent["payment_method"])
    intent["latest_charge"] = new_id("ch")
    if state is not None:
        held = intent["amount"] if state == "requires_capture" else 0
        intent |= {"status": state, "amount_capturable": held}
    elif card.decline is None:
        intent |= {"status": "succeeded", "amount_received": intent["amount"], "last_payment_error": None}
    else:
        intent |= {
            "status": "requires_payment_method",
            "payment_method": None,
            "last_payment_error": _payment_error(card, intent["latest_charge"]),
        }


def _payment_error(card: Card, charge: str) -> dict[str, Any]:
    decline = card.decline
    assert decline is not None
    error = {
        "advice_code": decline.advice,
        "charge": charge,
        "code": decline.code,
        "decline_code": decline.decline_code,
        "message": decline.message,
        "payment_method": card.as_json(),
        "type": "card_error",
    }
    return error | {"param": decline.param} if decline.param else error


def _automatic_payment_methods(params: Parameters) -> dict[str, Any] | None:
    asked = params.get("automatic_payment_methods")
    if asked is None:
        if "payment_method_types" in params:
            return None
        # Since API version 2023-08-16 this is the default of an intent.
        return {"allow_redirects": "always", "enabled": True}
    if not isinstance(asked, dict):
        raise StripeError(400, "Invalid object: automatic_payment_methods", param="automatic_payment_methods")
    if "payment_method_types" in params:
        raise StripeError(
            400,
            "You may only specify one of these parameters: automatic_payment_methods, payment_method_types.",
        )
    redirects = parameters.choice(asked, "allow_redirects", ("always", "never")) or "always"
    return {"allow_redirects": redirects, "enabled": parameters.flag(asked, "enabled")}


def _require_return_url(params: Parameters, automatic: dict[str, Any] | None) -> None:
    if (
        automatic
        and automatic["enabled"]
        and automatic["allow_redirects"] == "always"
        and "return_url" not in params
    ):
        raise StripeError(
            400,
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because some"
            " of these payment methods might redirect your customer off of your page, you must provide a"
            " `return_url`. If you don't want to accept redirect-based payment methods, set"
            " `automatic_payment_methods[enabled]` to `true` and `automatic_payment_methods[allow_redirects]`"
            " to `never` when creating Setup Intents and Payment Intents.",
        )


def _unexpected_state(intent: Intent, verb: str) -> StripeError:
    return StripeError(
        400,
        f"You cannot {verb} this PaymentIntent because it has a status of {intent['status']}. Only a"
        f" PaymentIntent with one of the following statuses may be {verb}ed: {', '.join(CANCELLABLE)}.",
        code="payment_intent_unexpected_state",
        details={"payment_intent": public(intent)},
    )
