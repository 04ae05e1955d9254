"""
Parameters of a request: decoding of Stripe's bracket notation, and checks that several endpoints share.

`metadata[order_id]=1` becomes `{"metadata": {"order_id": "1"}}`, `expand[]=a` and `expand[0]=a` become a list.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

from . import errors
from .errors import StripeError

Parameters = dict[str, Any]

LARGEST_AMOUNT = 99_999_999
# The smallest charges that Stripe documents, in minor units.
SMALLEST = {
    "usd": 50, "aed": 200, "ars": 50, "aud": 50, "brl": 50, "cad": 50, "chf": 50, "cop": 50, "czk": 1500,
    "dkk": 250, "eur": 50, "gbp": 30, "hkd": 400, "huf": 17500, "idr": 50, "ils": 50, "inr": 50, "jpy": 50,
    "krw": 50, "mxn": 1000, "myr": 200, "nok": 300, "nzd": 50, "php": 50, "pln": 200, "ron": 200, "rub": 50,
    "sek": 300, "sgd": 50, "thb": 1000, "zar": 50,
}  # fmt: skip
# Amounts in these currencies must be multiples of these steps.
STEPS = {"isk": 100, "ugx": 100, "bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10}
# What Stripe allows in metadata.
MOST_METADATA, LONGEST_NAME, LONGEST_VALUE = 50, 40, 500
MOST_LISTED, USUALLY_LISTED = 100, 10
# Deeper than any parameter of Stripe.
DEEPEST = 8


def decode(pairs: Iterable[tuple[str, str]]) -> Parameters:
    """
    Build the nested parameters from form fields.

    Raises:
        StripeError: if two fields contradict each other.
    """
    root: Parameters = {}
    for name, value in pairs:
        head, *rest = re.split(r"\[", name)
        steps = [head, *(step.removesuffix("]") for step in rest)]
        if len(steps) > DEEPEST:
            raise errors.invalid(head, f"Invalid parameter: {head}", "parameter_unknown")
        place = root
        for step in steps[:-1]:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise errors.invalid(head, f"Invalid object: {head}", "parameter_unknown")
        last = steps[-1] or str(len(place))
        place[last] = value
    # Names in metadata are the caller's and may be numbers.
    return {name: value if name == "metadata" else _listed(value) for name, value in root.items()}


def refuse_unknown(parameters: Parameters, known: Collection[str]) -> None:
    """
    Refuse unknown parameters, as Stripe does: a misspelt parameter must not be ignored silently.

    Raises:
        StripeError: if there is an unknown parameter.
    """
    for name in parameters:
        if name not in known:
            raise errors.invalid(name, f"Received unknown parameter: {name}", "parameter_unknown")
    for path in list_of(parameters, "expand"):
        raise StripeError(400, f"This property cannot be expanded ({path}).", param="expand")


def amount(parameters: Parameters) -> int | None:
    value = parameters.get("amount")
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"-?\d{1,18}", value):
        raise errors.invalid("amount", "Invalid integer: amount")
    if int(value) < 1:
        raise errors.invalid("amount", "This value must be greater than or equal to 1.")
    if int(value) > LARGEST_AMOUNT:
        raise errors.invalid("amount", f"Amount must be no more than {LARGEST_AMOUNT}.", "amount_too_large")
    return int(value)


def refuse_uncharged(amount: int, currency: str) -> None:
    """
    Refuse amounts that Stripe does not charge.

    Raises:
        StripeError: if the amount is too small, or not a multiple of the smallest step.
    """
    if amount < (smallest := SMALLEST.get(currency, 1)):
        message = f"Amount must be at least {smallest} {currency}."
        raise errors.invalid("amount", message, "amount_too_small")
    if amount % STEPS.get(currency, 1):
        message = f"Invalid amount: for {currency} it must be divisible by {STEPS[currency]}."
        raise errors.invalid("amount", message, "parameter_invalid_integer")


def currency(parameters: Parameters) -> str:
    value = parameters.get("currency")
    if not value:
        raise errors.missing("currency")
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z]{3}", value):
        raise StripeError(400, "Invalid currency: it has three letters, as in gbp.", param="currency")
    return value.lower()


def metadata(parameters: Parameters) -> dict[str, str]:
    value = parameters.get("metadata") or {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise StripeError(400, "Invalid object: metadata must be a set of key-value pairs.", param="metadata")
    if len(value) > MOST_METADATA:
        raise StripeError(400, f"Metadata can have up to {MOST_METADATA} keys.", param="metadata")
    for name, text in value.items():
        if len(name) > LONGEST_NAME or len(text) > LONGEST_VALUE:
            limits = f"keys can have up to {LONGEST_NAME} characters, values up to {LONGEST_VALUE}"
            raise StripeError(400, f"Metadata {limits}.", param=f"metadata[{name[:LONGEST_NAME]}]")
    return {name: text for name, text in value.items() if text}


def flag(parameters: Parameters, name: str) -> bool:
    value = parameters.get(name, "false")
    if value not in ("true", "false"):
        raise errors.invalid(name, f"Invalid boolean: {name}", "parameter_unknown")
    return bool(value == "true")


def text(parameters: Parameters, name: str) -> str | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, str):
        raise errors.invalid(name, f"Invalid string: {name}", "parameter_unknown")
    return value or None


def choice(parameters: Parameters, name: str, choices: Collection[str]) -> str | None:
    value = text(parameters, name)
    if value is not None and value not in choices:
        message = f"Invalid {name}: must be one of {', '.join(choices)}"
        raise StripeError(400, message, param=name)
    return value


def list_of(parameters: Parameters, name: str) -> list[str]:
    value = parameters.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise StripeError(400, f"Invalid array: {name}", param=name)
    return value


def limit(parameters: Parameters) -> int:
    value = str(parameters.get("limit", USUALLY_LISTED))
    if not re.fullmatch(r"\d{1,9}", value):
        raise errors.invalid("limit", "Invalid integer: limit")
    if not 1 <= int(value) <= MOST_LISTED:
        raise errors.invalid("limit", f"This value must be between 1 and {MOST_LISTED}.")
    return int(value)


def _listed(value: Any) -> Any:
    """Turn a mapping whose keys are all numbers into a list."""
    if not isinstance(value, dict):
        return value
    inner = {name: _listed(item) for name, item in value.items()}
    if inner and all(re.fullmatch(r"\d{1,4}", name) for name in inner):
        return [inner[name] for name in sorted(inner, key=int)]
    return inner
