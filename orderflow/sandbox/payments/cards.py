"""
The payment methods of Stripe's test mode, and the outcome of paying with each.

A real card number never gets past `refuse_card_numbers`: it is neither stored nor repeated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from . import errors
from .errors import StripeError
from .parameters import Parameters

LAST_DIGITS = {"visa": "4242", "visa_debit": "5556", "mastercard": "4444", "amex": "0005", "discover": "1117"}
DECLINED = re.compile(r"pm_card_(?:(?P<brand>visa|mastercard|amex)_)?chargeDeclined(?P<reason>\w*)")
CARD_NUMBER = re.compile(r"(?:\d[ -]?){13,19}")


@dataclass(frozen=True, slots=True)
class Decline:
    code: str
    decline_code: str
    message: str
    advice: str
    param: str | None = None


DECLINES = {
    "": Decline("card_declined", "generic_decline", "Your card was declined.", "try_again_later"),
    "InsufficientFunds": Decline(
        "card_declined", "insufficient_funds", "Your card has insufficient funds.", "try_again_later"
    ),
    "LostCard": Decline("card_declined", "lost_card", "Your card was declined.", "do_not_try_again"),
    "StolenCard": Decline("card_declined", "stolen_card", "Your card was declined.", "do_not_try_again"),
    "Fraudulent": Decline("card_declined", "fraudulent", "Your card was declined.", "do_not_try_again"),
    "ExpiredCard": Decline(
        "expired_card", "expired_card", "Your card has expired.", "do_not_try_again", "exp_month"
    ),
    "IncorrectCvc": Decline(
        "incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect.", "confirm_card_data", "cvc"
    ),
    "ProcessingError": Decline(
        "processing_error",
        "processing_error",
        "An error occurred while processing your card. Try again in a little bit.",
        "try_again_later",
    ),
}


@dataclass(frozen=True, slots=True)
class Card:
    """A payment method, and the decline it causes; None: the payment succeeds."""

    id: str
    brand: str
    decline: Decline | None

    def as_json(self) -> dict[str, Any]:
        last4 = LAST_DIGITS.get(self.brand, "4242") if self.decline is None else "0002"
        card = {"brand": self.brand.partition("_")[0], "exp_month": 12, "exp_year": 2034, "last4": last4}
        return {"id": self.id, "object": "payment_method", "card": card, "livemode": False, "type": "card"}


def refuse_card_numbers(parameters: Parameters) -> None:
    """
    Refuse a raw card number, as Stripe does unless the account may handle them.

    Raises:
        StripeError: if any parameter contains one.
    """
    method = parameters.get("payment_method")
    data = parameters.get("payment_method_data")
    places = [method, parameters.get("card"), parameters.get("source"), data]
    places += [data.get("card")] if isinstance(data, dict) else []
    written = isinstance(method, str) and CARD_NUMBER.fullmatch(method.strip())
    if written or any(isinstance(place, dict) and "number" in place for place in places):
        # Stripe really responds with 402 here, and with this type.
        raise StripeError(
            402,
            "Sending credit card numbers directly to the Stripe API is generally unsafe. We suggest you use"
            " test tokens that map to the test card you are using, see https://docs.stripe.com/testing.",
        )


def card(name: str) -> Card:
    """
    Find a test payment method.

    Raises:
        StripeError: if Stripe's test mode has none of that name.
    """
    brand = name.removeprefix("pm_card_")
    if name.startswith("pm_card_") and brand in LAST_DIGITS:
        return Card(name, brand, None)
    declined = DECLINED.fullmatch(name)
    if declined and declined["reason"] in DECLINES:
        return Card(name, declined["brand"] or "visa", DECLINES[declined["reason"]])
    raise errors.not_found("PaymentMethod", name, param="payment_method", status=400)
