"""Field types of the API's input: strict, without control characters, and never with a card number."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from typing import Annotated, Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import validate_email
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from orders import cards

IDEMPOTENCY_KEY = r'^(?:[!#-+\--~][!-+\--~]{0,254}|"(?:[!#-\[\]-~]|\\["\\]){1,255}")$'
"""
1 to 255 visible ASCII characters, bare or as the quoted string of a structured field (RFC 9651).

A bare key has no comma: a header that is sent twice arrives as one value, joined by a comma, and is not a valid
key.
"""

PLAIN = r"^[^\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]*$"
"""No control characters, no invisible characters and none that change the direction of text: see `_plain`."""

JOINERS = "\u200c\u200d"
"""Invisible, but used in names written in Persian or Hindi."""

VISIBLE = r"^[!-~]*$"
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.IGNORECASE | re.ASCII)


def card_number() -> PydanticCustomError:
    """The error of a field that contains a card number."""
    return PydanticCustomError(
        "card_number", "this looks like a card number; send the token that the payment provider gave you"
    )


def _no_card_number(value: Any) -> Any:
    if isinstance(value, str) and cards.are_in(value):
        raise card_number()
    return value


def _phone(value: Any) -> Any:
    if isinstance(value, str) and cards.is_phone(value):
        raise card_number()
    return value


def _plain(value: str) -> str:
    """Apply the pattern also to characters beyond the first plane, which not all patterns can express."""
    if any(
        unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in value.translate(_WITHOUT_JOINERS)
    ):
        raise PydanticCustomError("text", "this contains invisible characters")
    return value


def _email(value: str) -> str:
    if value:
        try:
            validate_email(value)
        except DjangoValidationError as invalid:
            raise PydanticCustomError("email", "this is not an e-mail address") from invalid
    return value


def _rfc3339(value: Any) -> Any:
    if isinstance(value, str) and not _RFC3339.fullmatch(value):
        raise PydanticCustomError("timestamp", "write a time as 2026-11-30T12:00:00Z, with its offset from UTC")
    return value


def _whole(value: Any) -> Any:
    """JSON has only numbers, and JSON Schema calls 2.0 an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _utc(value: dt.datetime) -> dt.datetime:
    """PostgreSQL accepts fewer offsets than Python."""
    try:
        return value.astimezone(dt.UTC)
    except OverflowError as beyond:
        raise PydanticCustomError("timestamp", "this time is out of range") from beyond


_WITHOUT_JOINERS = str.maketrans("", "", JOINERS)

# A pattern is before the validators: after one, it would be missing in the OpenAPI document.
Plain = Annotated[str, Field(pattern=PLAIN), AfterValidator(_plain), BeforeValidator(_no_card_number)]
Name = Annotated[Plain, Field(max_length=200)]
Text100 = Annotated[Plain, Field(max_length=100)]
Email = Annotated[Plain, Field(max_length=254, json_schema_extra={"format": "email"}), AfterValidator(_email)]
EmailText = Annotated[Plain, Field(min_length=1, max_length=254)]
Phone = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{6,14}$", description="E.164."), BeforeValidator(_phone)]
PushToken = Annotated[str, Field(max_length=300, pattern=VISIBLE), BeforeValidator(_no_card_number)]
PaymentMethod = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,99}$",
        description="The payment provider's token for the customer's card. Never a card number.",
        examples=["pm_card_visa"],
    ),
    BeforeValidator(_no_card_number),
]
Sku = Annotated[
    str,
    Field(min_length=1, max_length=64, pattern=PLAIN, examples=["MUG-BLUE"]),
    AfterValidator(_plain),
]
"""May have as many digits as a card number, like bar codes. It is stored only if such a product exists."""

Quantity = Annotated[int, BeforeValidator(_whole)]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2.", examples=["GB"])]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217.", examples=["GBP"])]
Time = Annotated[
    AwareDatetime,
    BeforeValidator(_rfc3339),
    AfterValidator(_utc),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
