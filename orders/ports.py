"""
What orders needs from the outside, and how the outside may fail.

Every call takes the key under which the outside recognises it. The errors say what may be done next:
a `Transient` call did nothing and may be repeated; after `OutcomeUnknown` nobody knows.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Protocol

from outbox.resilience import NotNow, Permanent, Transient


class PaymentDeclined(Exception):
    """The bank said no. An answer, not a failure; `code` is the provider's, the text fit for the customer."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class OutcomeUnknown(Transient):
    """The provider may or may not have acted: look it up under the same key, never call with a new one."""


class CallInFlight(NotNow):
    """An earlier call with this key is not over yet, so what it will have done is not known."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=dt.timedelta(seconds=2))


def may_have_acted(failure: BaseException) -> bool:
    """Whether the outside may have done what was asked although the call failed."""
    if isinstance(failure.__cause__, OutcomeUnknown):
        return True  # the breaker wraps what opened it
    if isinstance(failure, OutcomeUnknown | CallInFlight):
        return True
    return not isinstance(failure, Permanent | Transient)


class ShipmentRefused(Exception):
    """The warehouse will not ship this order. An answer, not a failure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Charge:
    """A charge as the provider keeps it."""

    id: str
    amount_minor: int
    currency: str
    succeeded: bool
    decline_code: str = ""
    message: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefundReceipt:
    """A refund as the provider keeps it."""

    id: str
    amount_minor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parcel:
    """A shipment as the warehouse keeps it."""

    id: str
    carrier: str
    tracking_number: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListedCharge(Charge):
    """A charge as the provider lists it; key and order are empty where somebody else made it."""

    idempotency_key: str
    order_id: str
    made_at: dt.datetime


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListedRefund(RefundReceipt):
    """A refund as the provider lists it; the key is empty where somebody made it by hand."""

    charge_id: str
    currency: str
    idempotency_key: str
    made_at: dt.datetime


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListedParcel(Parcel):
    """A shipment as the warehouse lists it."""

    order_id: str
    idempotency_key: str
    made_at: dt.datetime


class PaymentGateway(Protocol):
    """Moves money."""

    def charge(
        self, *, amount_minor: int, currency: str, payment_method: str, order_id: str, idempotency_key: str
    ) -> Charge:
        """
        Charge, once per key.

        Raises:
            PaymentDeclined: the bank refused.
            OutcomeUnknown: the answer was lost.
            outbox.resilience.Transient: nothing happened; the same call may be repeated.
            outbox.resilience.Permanent: the request itself is refused.
        """
        ...

    def look_up(self, *, idempotency_key: str) -> Charge | None:
        """The charge made under this key, or None if the provider knows of none."""
        ...

    def refund(self, *, charge_id: str, amount_minor: int, idempotency_key: str) -> RefundReceipt:
        """Give a charge back, once per key; raises as `charge` does, but for the decline."""
        ...

    def charges(self, *, since: dt.datetime | None) -> Iterator[ListedCharge]:
        """
        All charges made since then, or ever, declined ones included, fetched page by page.

        Raises:
            outbox.resilience.Transient: the provider does not answer.
        """
        ...

    def refunds(self, *, since: dt.datetime | None) -> Iterator[ListedRefund]:
        """All refunds made since then, or ever, but for those that failed; raises as `charges` does."""
        ...


class Warehouse(Protocol):
    """Ships parcels."""

    def ship(
        self,
        *,
        order_id: str,
        order_number: str,
        country: str,
        lines: Sequence[tuple[str, int]],
        idempotency_key: str,
    ) -> Parcel:
        """
        Ship `lines` (SKU, quantity), once per key.

        Raises:
            ShipmentRefused: the warehouse will not.
            OutcomeUnknown: the answer was lost; the same call is safe, the warehouse honours keys.
            outbox.resilience.Transient: nothing happened; the same call may be repeated.
        """
        ...

    def look_up(self, *, idempotency_key: str) -> Parcel | None:
        """The parcel shipped under this key, or None if the warehouse knows of none."""
        ...

    def shipments(self, *, since: dt.datetime | None) -> Iterator[ListedParcel]:
        """
        All shipments made since then, or ever, fetched page by page.

        Raises:
            outbox.resilience.Transient: the warehouse does not answer.
        """
        ...
