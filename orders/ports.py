"""
What orders needs from the outside, and how the outside may fail.

Every call takes the key under which the outside recognises it. The errors say what may be done next:
a `Transient` call did nothing and may be repeated; after `OutcomeUnknown` nobody knows.
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
"""Characters of a name, a code or a number of the provider's; see the models."""

LONGEST_REASON = 300
"""Characters of a reason that customers read, in text messages too."""


def reason(value: object) -> str:
    """A provider's reason as it can be stored and sent on; empty if there is none."""
    return storable.text(value, longest=LONGEST_REASON)


def name(value: object) -> str:
    """A provider's name, code or number as it can be stored; empty if there is none."""
    return storable.text(value, longest=LONGEST_NAME)


class PaymentDeclined(Exception):
    """The bank said no. An answer, not a failure; `code` is the provider's, the text fit for the customer."""

    def __init__(self, message: object, *, code: object = "") -> None:
        super().__init__(reason(message))
        self.code = name(code)


class OutcomeUnknown(Transient):
    """The provider may or may not have acted: look it up under the same key, never call with a new one."""


class CallInFlight(NotNow):
    """An earlier call with this key is not over yet, so what it will have done is not known."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=dt.timedelta(seconds=2))


class ChargeUndecided(NotNow):
    """The provider has the charge and may still capture it; only time will tell. No attempt is spent."""


class ChargeHeld(ChargeUndecided):
    """The money is reserved, and the provider waits for a person to capture or cancel the charge there."""


class ChargeDiffers(Permanent):
    """The provider has captured another amount than the order's: somebody has to decide what becomes of it."""


class RefundUndecided(NotNow):
    """The provider has the refund and has not carried it out yet."""


class RefundFailed(Permanent):
    """The provider has given nothing back, and will not: somebody has to find another way, or try again."""


class RefundDiffers(Permanent):
    """The provider has given another amount back than was asked for: somebody has to give back the rest."""


def may_have_acted(failure: BaseException) -> bool:
    """Whether the outside may have done what was asked although the call failed."""
    if isinstance(failure.__cause__, OutcomeUnknown):
        return True  # the breaker wraps what opened it
    if isinstance(failure, OutcomeUnknown | CallInFlight | ChargeUndecided):
        return True
    return not isinstance(failure, Permanent | Transient)


class ShipmentRefused(Exception):
    """
    The warehouse will not ship this order, or cannot by what it says. An answer, not a failure; the text is fit
    for the customer.
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
    """It may, as soon as somebody says so; it can be cancelled."""
    UNFINISHED = "unfinished"
    """It may, but not without the customer; it can be cancelled."""


class RefundState(enum.StrEnum):
    """Whether a refund has given the money back."""

    DONE = "done"
    PENDING = "pending"
    FAILED = "failed"


class Answer:
    """
    What a provider did. That it was done is never lost because of how it is described: texts are made
    storable, by the metadata of their field or else as ids.
    """

    def __post_init__(self) -> None:
        fields: Any = dataclasses.fields(self)  # type: ignore[arg-type]  # of a dataclass that is one
        for field in fields:
            if field.type in ("str", str):
                kept = field.metadata.get("kept", storable.identifier)
                object.__setattr__(self, field.name, kept(getattr(self, field.name)))


def described(kept: Callable[[object], str], **options: Any) -> Any:
    """A field for a text that is no id, and how it is made storable."""
    return dataclasses.field(metadata={"kept": kept}, **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Charge(Answer):
    """A charge as the provider keeps it; the message is fit for the customer."""

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
    """A refund as the provider keeps it."""

    id: str
    amount_minor: int
    state: RefundState = RefundState.DONE
    message: str = described(storable.note, default="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parcel(Answer):
    """A shipment as the warehouse keeps it."""

    id: str
    carrier: str = described(name)
    tracking_number: str = described(name)
    order_number: str = ""
    country: str = ""
    lines: tuple[tuple[str, int], ...] = ()
    """SKU and quantity."""


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
        Charge, once per key. What comes back need not be decided: see `ChargeState`.

        Raises:
            PaymentDeclined: the bank refused, or the amount cannot be charged.
            OutcomeUnknown: the answer was lost.
            outbox.resilience.Transient: nothing happened; the same call may be repeated.
            outbox.resilience.Permanent: the request itself is refused.
        """
        ...

    def look_up(self, *, idempotency_key: str) -> Charge | None:
        """The charge made under this key, as it is now, or None if the provider knows of none."""
        ...

    def cancel(self, *, charge_id: str) -> Charge:
        """Cancel a charge that has not been captured, and return it as it then is: it may have been faster."""
        ...

    def refusal_of(self, amount_minor: int, currency: str) -> str:
        """Why this amount can certainly not be charged, as customers may read it; empty if it may be."""
        ...

    def refund(
        self, *, charge_id: str, amount_minor: int, currency: str, idempotency_key: str
    ) -> RefundReceipt:
        """
        Give a charge back, once per key, and return the refund as it now is: it need not be done.

        Raises as `charge` does, but for the decline.
        """
        ...

    def look_up_refund(self, *, charge_id: str, idempotency_key: str) -> RefundReceipt | None:
        """
        The refund of this charge under this key, or one that begins with it; None if all of them failed.
        """
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
        """The parcel shipped under this key, or None if the warehouse knows of none that leaves."""
        ...

    def shipments(self, *, since: dt.datetime | None) -> Iterator[ListedParcel]:
        """
        All shipments made since then, or ever, fetched page by page.

        Raises:
            outbox.resilience.Transient: the warehouse does not answer.
        """
        ...
