"""
The interfaces that orders needs of providers, and their failures.

Every call has a key by which the provider recognises it. The exceptions define what may be done next: after a
`Transient` failure nothing was done and the call may be repeated; after `OutcomeUnknown` the result is unknown.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from outbox.database import storable
from outbox.resilience import NotNow, Permanent, Transient

LONGEST_NAME = 100
"""Maximum length of a provider's name, code or number; see the models."""

LONGEST_REASON = 300
"""Maximum length of a reason that customers read, also in text messages."""


def reason(value: object) -> str:
    """Return a provider's reason in a form that can be stored and sent on; empty if there is none."""
    return storable.text(value, longest=LONGEST_REASON)


def name(value: object) -> str:
    """Return a provider's name, code or number in a form that can be stored; empty if there is none."""
    return storable.text(value, longest=LONGEST_NAME)


class PaymentDeclined(Exception):
    """The bank refused. A result, not a failure; `code` is the provider's, the text is fit for the customer."""

    def __init__(self, message: object, *, code: object = "") -> None:
        super().__init__(reason(message))
        self.code = name(code)


class OutcomeUnknown(Transient):
    """The provider may or may not have acted: look it up under the same key, never call with a new one."""


class CallInFlight(NotNow):
    """An earlier call with this key is still in progress, so its result is unknown."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=dt.timedelta(seconds=2))


class ChargeUndecided(NotNow):
    """The provider has the charge and may still capture it. The step waits, and spends no attempt."""


class ChargeHeld(ChargeUndecided):
    """The money is reserved, and a person must capture or cancel the charge at the provider."""


class ChargeDiffers(Permanent):
    """The provider has captured an amount other than the order's: a person must decide what to do."""


class RefundUndecided(NotNow):
    """The provider has accepted the refund and has not carried it out yet."""


class RefundFailed(Permanent):
    """The provider has refused the refund for good: a person must find another way, or try again."""


class RefundDiffers(Permanent):
    """The provider has refunded another amount than requested: a person must refund the rest."""


def may_have_acted(failure: BaseException) -> bool:
    """Return whether the provider may have acted although the call failed."""
    if isinstance(failure.__cause__, OutcomeUnknown):
        return True  # the breaker wraps the failure that opened it
    if isinstance(failure, OutcomeUnknown | CallInFlight | ChargeUndecided):
        return True
    return not isinstance(failure, Permanent | Transient)


class ShipmentRefused(Exception):
    """
    The warehouse refuses to ship this order, or cannot. A result, not a failure; the text is fit for the
    customer.
    """

    def __init__(self, message: object) -> None:
        super().__init__(reason(message))


class ChargeState(enum.StrEnum):
    """Whether a charge has captured the money, or ever can."""

    CAPTURED = "captured"
    REFUSED = "refused"
    """It has not, and never will."""
    PENDING = "pending"
    """It may, and cannot be stopped: only time decides."""
    HELD = "held"
    """It may, as soon as somebody captures it; it can be cancelled."""
    UNFINISHED = "unfinished"
    """It may, but not without the customer; it can be cancelled."""


class RefundState(enum.StrEnum):
    """Whether a refund has returned the money."""

    DONE = "done"
    PENDING = "pending"
    FAILED = "failed"


class Answer:
    """
    The result of a provider's action. A malformed description must never hide that it was done: texts are made
    storable, by the metadata of their field or otherwise as ids.
    """

    def __post_init__(self) -> None:
        fields: Any = dataclasses.fields(self)  # type: ignore[arg-type]  # of a dataclass that is one
        for field in fields:
            if field.type in ("str", str):
                kept = field.metadata.get("kept", storable.identifier)
                object.__setattr__(self, field.name, kept(getattr(self, field.name)))


def described(kept: Callable[[object], str], **options: Any) -> Any:
    """A field for a text that is not an id, and the function that makes it storable."""
    return dataclasses.field(metadata={"kept": kept}, **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Charge(Answer):
    """A charge at the provider; the message is fit for the customer."""

    id: str
    amount_minor: int
    currency: str
    state: ChargeState
    decline_code: str = described(name, default="")
    message: str = described(reason, default="")
    payment_method: str = described(name, default="")

    @property
    def succeeded(self) -> bool:
        return self.state is ChargeState.CAPTURED

    @property
    def is_decided(self) -> bool:
        return self.state in (ChargeState.CAPTURED, ChargeState.REFUSED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefundReceipt(Answer):
    """A refund at the provider."""

    id: str
    amount_minor: int
    state: RefundState = RefundState.DONE
    message: str = described(storable.note, default="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parcel(Answer):
    """A shipment at the warehouse."""

    id: str
    carrier: str = described(name)
    tracking_number: str = described(name)
    order_number: str = ""
    country: str = ""
    lines: tuple[tuple[str, int], ...] = ()
    """SKU and quantity."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListedCharge(Charge):
    """A charge in the provider's list; key and order are empty if it is not ours."""

    idempotency_key: str
    order_id: str
    made_at: dt.datetime


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListedRefund(RefundReceipt):
    """A refund in the provider's list; the key is empty if somebody made it by hand."""

    charge_id: str
    currency: str
    idempotency_key: str
    made_at: dt.datetime


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListedParcel(Parcel):
    """A shipment in the warehouse's list."""

    order_id: str
    idempotency_key: str
    made_at: dt.datetime


class PaymentGateway(Protocol):
    """Moves money."""

    def charge(
        self, *, amount_minor: int, currency: str, payment_method: str, order_id: str, idempotency_key: str
    ) -> Charge:
        """
        Charge, once per key. The result may still be undecided: see `ChargeState`.

        Raises:
            PaymentDeclined: the bank refused, or the amount cannot be charged.
            OutcomeUnknown: the response was lost.
            outbox.resilience.Transient: nothing happened; the same call may be repeated.
            outbox.resilience.Permanent: the request itself is refused.
        """
        ...

    def look_up(self, *, idempotency_key: str) -> Charge | None:
        """Return the current state of the charge made under this key, or None if the provider has none."""
        ...

    def cancel(self, *, charge_id: str) -> Charge:
        """Cancel an uncaptured charge and return its state afterwards: it may have been captured meanwhile."""
        ...

    def refusal_of(self, amount_minor: int, currency: str) -> str:
        """Return why this amount can certainly not be charged, in words for customers; empty if it may be."""
        ...

    def refund(
        self, *, charge_id: str, amount_minor: int, currency: str, idempotency_key: str
    ) -> RefundReceipt:
        """
        Refund a charge, once per key, and return the current state of the refund: it may not be done yet.

        Raises as `charge` does, except for the decline.
        """
        ...

    def look_up_refund(self, *, charge_id: str, idempotency_key: str) -> RefundReceipt | None:
        """
        Return the refund of this charge whose key is this one or begins with it; None if all of them failed.
        """
        ...

    def charges(self, *, since: dt.datetime | None) -> Iterator[ListedCharge]:
        """
        Yield all charges made since then, or ever, including declined ones, page by page.

        Raises:
            outbox.resilience.Transient: the provider does not respond.
        """
        ...

    def refunds(self, *, since: dt.datetime | None) -> Iterator[ListedRefund]:
        """Yield all refunds made since then, or ever, except failed ones; raises as `charges` does."""
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
            ShipmentRefused: the warehouse refuses.
            OutcomeUnknown: the response was lost; the same call is safe, because the warehouse honours keys.
            outbox.resilience.Transient: nothing happened; the same call may be repeated.
        """
        ...

    def look_up(self, *, idempotency_key: str) -> Parcel | None:
        """Return the parcel shipped under this key, or None if there is none that leaves."""
        ...

    def shipments(self, *, since: dt.datetime | None) -> Iterator[ListedParcel]:
        """
        Yield all shipments made since then, or ever, page by page.

        Raises:
            outbox.resilience.Transient: the warehouse does not respond.
        """
        ...
