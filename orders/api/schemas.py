"""
The API's input and output, strict: unknown fields, control characters and implicit conversions are refused.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from orders.api import fields
from orders.moves import Status

MOST_LINES = 500
MOST_OF_ONE = 1_000_000
LONGEST_PAGE = 100

Minor = Annotated[int, Field(description="Minor units of the currency: pence, cents.")]


class Given(BaseModel):
    """Input from a client."""

    model_config = ConfigDict(extra="forbid", strict=True)


class GivenItem(Given):
    """A quantity of one product. Items of the same product are merged."""

    sku: fields.Sku
    quantity: fields.Quantity = Field(ge=1, le=MOST_OF_ONE)


class GivenCustomer(Given):
    """The customer's contact; a channel without an address is not used."""

    name: fields.Name = ""
    email: fields.Email | None = None
    phone: fields.Phone | None = None
    push_token: fields.PushToken | None = None


class NewOrder(Given):
    """An order to be placed."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "items": [{"sku": "MUG-BLUE", "quantity": 2}],
                "currency": "GBP",
                "payment_method": "pm_card_visa",
                "customer": {"name": "Ada Example", "email": "ada@example.com", "phone": "+447700900123"},
                "country": "GB",
                "client_reference": "cart-8812",
            }
        }
    )

    items: list[GivenItem] = Field(min_length=1, max_length=MOST_LINES)
    currency: fields.Currency
    payment_method: fields.PaymentMethod
    customer: GivenCustomer = Field(default_factory=GivenCustomer)
    country: fields.Country
    client_reference: fields.Text100 = Field(default="", description="The client's reference for the order.")


class OrderFilters(BaseModel):
    """Filters and page size of a list of orders."""

    status: Status | None = None
    client_reference: fields.Text100 | None = Field(default=None, min_length=1)
    email: fields.EmailText | None = None
    placed_after: fields.Time | None = None
    placed_before: fields.Time | None = None
    limit: int = Field(default=20, ge=1, le=LONGEST_PAGE)
    cursor: str | None = Field(
        default=None, min_length=1, max_length=200, description="The `next_cursor` of the previous page."
    )


class Line(BaseModel):
    """A quantity of one product, at the price when it was ordered."""

    sku: str
    name: str
    quantity: int
    unit_price_minor: Minor
    total_minor: Minor


class Links(BaseModel):
    """Links to related resources."""

    self_: str = Field(alias="self")
    cancel: str


class OrderSummary(BaseModel):
    """An order as placed, and its current state."""

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
    """A refund."""

    status: str
    amount_minor: Minor


NeedsAttention = Annotated[
    bool,
    Field(
        description="Whether a person must act before the order continues: a step was given up, its message "
        "cannot be read, or its payment is only reserved."
    ),
]


class Paid(BaseModel):
    """One attempt to charge the customer."""

    status: str
    amount_minor: Minor
    currency: str
    decline_code: str
    requested_at: dt.datetime
    resolved_at: dt.datetime | None = Field(description="null until the outcome is known.")
    refund: Refunded | None = Field(description="null if nothing was refunded.")


class Shipped(BaseModel):
    """The shipment of the order."""

    status: str
    carrier: str
    tracking_number: str


class Moved(BaseModel):
    """One move of the order."""

    from_status: Status | None = Field(
        alias="from", description="null for the first entry: the order was placed."
    )
    to_status: Status = Field(alias="to")
    at: dt.datetime
    note: str


class OrderDetail(OrderSummary):
    """An order with its payments, its shipment and its history."""

    reason: str = Field(description="Why it was rejected or cancelled.")
    cancel_requested_at: dt.datetime | None = Field(description="null unless cancellation was requested.")
    finished_at: dt.datetime | None = Field(description="null until the order is final.")
    payments: list[Paid]
    shipment: Shipped | None = Field(description="null until shipment was requested from the warehouse.")
    timeline: list[Moved]
    needs_attention: NeedsAttention


class ListedOrder(OrderSummary):
    """An order in a list."""

    needs_attention: NeedsAttention


class OrderPage(BaseModel):
    """One page of orders, newest first."""

    items: list[ListedOrder]
    next_cursor: str | None = Field(description="null on the last page.")


class Cancellation(BaseModel):
    """An accepted request for cancellation. The order's status shows its outcome."""

    id: uuid.UUID
    number: str
    status: Status
    cancel_requested_at: dt.datetime | None
    links: Links


class ProblemError(BaseModel):
    """One error in the request."""

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
