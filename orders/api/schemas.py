"""What the API takes and gives, strictly: unknown fields, control characters and guesses are refused."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import Annotated, Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import validate_email
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from orders.moves import Status

MOST_LINES = 500
MOST_OF_ONE = 1_000_000
LONGEST_PAGE = 100

IDEMPOTENCY_KEY = r'^(?:[!#-~][!-~]{0,254}|"(?:[!#-\[\]-~]|\\["\\]){1,255}")$'
"""1 to 255 visible ASCII characters, bare or as the quoted string of a structured field (RFC 9651)."""

_PLAIN = r"^[^\x00-\x1f\x7f]*$"
"""No control characters: the database takes no NUL, and line breaks have no place in names."""

_VISIBLE = r"^[!-~]*$"
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.IGNORECASE | re.ASCII)
_DIGIT_RUN = re.compile(r"(?:\d[ .-]?){11,18}\d", re.ASCII)


def looks_like_a_card_number(text: str) -> bool:
    """Whether `text` contains 12 to 19 digits, grouped or not, with the check digit of card numbers."""
    for run in _DIGIT_RUN.findall(text):
        digits = [int(character) for character in run if character.isdigit()]
        doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
        if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0:
            return True
    return False


def _no_card_number(value: Any) -> Any:
    if isinstance(value, str) and looks_like_a_card_number(value):
        raise PydanticCustomError(
            "card_number", "this looks like a card number; send the token that the payment provider gave you"
        )
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
    """JSON knows numbers only, and JSON Schema calls 2.0 an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _utc(value: dt.datetime) -> dt.datetime:
    """PostgreSQL takes fewer offsets than Python."""
    try:
        return value.astimezone(dt.UTC)
    except OverflowError as beyond:
        raise PydanticCustomError("timestamp", "this time is out of range") from beyond


Email = Annotated[
    str, Field(max_length=254, pattern=_PLAIN, json_schema_extra={"format": "email"}), AfterValidator(_email)
]
Text100 = Annotated[str, Field(max_length=100, pattern=_PLAIN)]
Time = Annotated[
    AwareDatetime,
    BeforeValidator(_rfc3339),
    AfterValidator(_utc),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Sku = Annotated[str, Field(min_length=1, max_length=64, pattern=_PLAIN, examples=["MUG-01"])]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217.", examples=["GBP"])]
Minor = Annotated[int, Field(description="Minor units of the currency: pence, cents.")]


class Given(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid", strict=True)


class GivenItem(Given):
    """So many of one product. Items of the same product merge."""

    sku: Sku
    quantity: Annotated[int, BeforeValidator(_whole)] = Field(ge=1, le=MOST_OF_ONE)


class GivenCustomer(Given):
    """How to reach the customer; a way that is left out is not used."""

    name: str = Field(default="", max_length=200, pattern=_PLAIN)
    email: Email | None = None
    phone: str | None = Field(default=None, pattern=r"^\+[1-9][0-9]{6,14}$", description="E.164.")
    push_token: str | None = Field(default=None, max_length=300, pattern=_VISIBLE)


class NewOrder(Given):
    """An order to be placed."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "items": [{"sku": "MUG-01", "quantity": 2}],
                "currency": "GBP",
                "payment_method": "pm_card_visa",
                "customer": {"name": "Ada Example", "email": "ada@example.com", "phone": "+447700900123"},
                "country": "GB",
                "client_reference": "cart-8812",
            }
        }
    )

    items: list[GivenItem] = Field(min_length=1, max_length=MOST_LINES)
    currency: Currency
    payment_method: Annotated[
        str,
        BeforeValidator(_no_card_number),
        Field(
            pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,99}$",
            description="The payment provider's token for the customer's card. Never a card number.",
            examples=["pm_card_visa"],
        ),
    ]
    customer: GivenCustomer = Field(default_factory=GivenCustomer)
    country: str | None = Field(default=None, pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2.")
    client_reference: Text100 = Field(default="", description="The client's own number of the order.")


class OrderFilters(BaseModel):
    """Which orders, and how many at a time."""

    status: Status | None = None
    client_reference: Text100 | None = Field(default=None, min_length=1)
    email: Annotated[str, Field(min_length=1, max_length=254, pattern=_PLAIN)] | None = None
    placed_after: Time | None = None
    placed_before: Time | None = None
    limit: int = Field(default=20, ge=1, le=LONGEST_PAGE)
    cursor: str | None = Field(
        default=None, min_length=1, max_length=200, description="`next_cursor` of a page."
    )


class Line(BaseModel):
    """So many of one product, at the price of the day it was ordered."""

    sku: str
    name: str
    quantity: int
    unit_price_minor: Minor
    total_minor: Minor


class Links(BaseModel):
    """Where to go from here."""

    self_: str = Field(alias="self")
    cancel: str


class OrderSummary(BaseModel):
    """An order as placed, and where it stands."""

    id: uuid.UUID
    number: str
    status: Status
    currency: str
    total_minor: Minor
    lines: list[Line]
    client_reference: str
    placed_at: dt.datetime
    links: Links


class Refunded(BaseModel):
    """What was given back."""

    status: str
    amount_minor: Minor


class Paid(BaseModel):
    """One attempt to charge the customer."""

    status: str
    amount_minor: Minor
    currency: str
    decline_code: str
    requested_at: dt.datetime
    resolved_at: dt.datetime | None = Field(description="null while the outcome is open.")
    refund: Refunded | None = Field(description="null: nothing was given back.")


class Shipped(BaseModel):
    """What the warehouse does with the order."""

    status: str
    carrier: str
    tracking_number: str


class Moved(BaseModel):
    """One move of the order."""

    from_status: Status | None = Field(alias="from", description="null when the order was placed.")
    to_status: Status = Field(alias="to")
    at: dt.datetime
    note: str


class OrderDetail(OrderSummary):
    """All that the API tells of an order."""

    reason: str = Field(description="Why it was rejected or cancelled.")
    cancel_requested_at: dt.datetime | None = Field(description="null: nobody asked to cancel.")
    finished_at: dt.datetime | None = Field(description="null until the order is final.")
    payments: list[Paid]
    shipment: Shipped | None = Field(description="null until the warehouse was asked.")
    timeline: list[Moved]


class OrderPage(BaseModel):
    """One page of orders, newest first."""

    items: list[OrderSummary]
    next_cursor: str | None = Field(description="null on the last page.")


class Cancellation(BaseModel):
    """That cancellation was asked for; the order's status tells what becomes of it."""

    id: uuid.UUID
    number: str
    status: Status
    cancel_requested_at: dt.datetime | None
    links: Links


class ProblemError(BaseModel):
    """One thing that is wrong."""

    pointer: str = Field(description="A JSON pointer into the body, or the name of a parameter.")
    code: str
    detail: str


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 describes it. Decide by `code`."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[ProblemError]
    request_id: str
    trace_id: str | None = None
