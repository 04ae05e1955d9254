"""Every call that adapters make, with the responses that a provider can give: done, refused, listed."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import itertools
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from notifications import channels
from notifications import ports as notification_ports
from notifications.models import Channel, Notification
from orders import adapters, ports
from outbox.database import storable
from outbox.http.answers import LARGEST_AMOUNT
from outbox.resilience import Permanent, Transient

DOCUMENTED = (Transient, Permanent, ports.PaymentDeclined, ports.ShipmentRefused)
"""The exceptions that a call may raise; see the ports."""

MOST_REQUESTS = 12
"""The number of requests that one call may make, including all pages of a list."""

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)

_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Made:
    """What was done before, so that it can be looked up, listed and refunded."""

    charge_key: str
    charge_id: str
    parcel_key: str
    notification: Notification


def notification(**changed: Any) -> Notification:
    number = next(_numbers)
    return Notification(
        **{
            "pk": number,
            "message_id": uuid.uuid4(),
            "order_id": uuid.uuid4(),
            "order_number": f"OF-H{number}",
            "channel": Channel.SMS,
            "template": "fulfilled",
            "recipient": "+447700900123",
            "subject": "Your order",
            "text": f"Your order OF-H{number} is on its way.",
            "created_at": dt.datetime.now(dt.UTC),
        }
        | changed
    )


def charge(*, payment_method: str = "pm_card_visa", key: str = "", amount_minor: int = 500) -> ports.Charge:
    return adapters.payment_gateway().charge(
        amount_minor=amount_minor,
        currency="GBP",
        payment_method=payment_method,
        order_id="order",
        idempotency_key=key or f"order-{uuid.uuid4()}-charge",
    )


def ship(*, key: str = "", sku: str = "SKU", country: str = "GB") -> ports.Parcel:
    return adapters.warehouse().ship(
        order_id=str(uuid.uuid4()),
        order_number="OF-1",
        country=country,
        lines=[(sku, 2)],
        idempotency_key=key or f"order-{uuid.uuid4()}-shipment",
    )


def send(channel: Channel, **changed: Any) -> str:
    return channels.get(channel).send(notification(channel=channel, **changed))


def prepare() -> Made:
    """Do something of each kind."""
    charge_key, parcel_key = f"order-{uuid.uuid4()}-charge", f"order-{uuid.uuid4()}-shipment"
    text = notification()
    made = charge(key=charge_key)
    ship(key=parcel_key)
    channels.get(Channel.SMS).send(text)
    _refund(charge().id)
    return Made(charge_key, made.id, parcel_key, text)


def _refund(charge_id: str) -> ports.RefundReceipt:
    return adapters.payment_gateway().refund(
        charge_id=charge_id, amount_minor=500, currency="GBP", idempotency_key=f"order-{uuid.uuid4()}-refund"
    )


CALLS: dict[str, Callable[[Made], Any]] = {
    "charges": lambda _: list(adapters.payment_gateway().charges(since=LONG_AGO)),
    "refunds": lambda _: list(adapters.payment_gateway().refunds(since=None)),
    "shipments": lambda _: list(adapters.warehouse().shipments(since=LONG_AGO)),
    "sent": lambda _: list(_sms().sent(since=None)),
    "look_up": lambda made: adapters.payment_gateway().look_up(idempotency_key=made.charge_key),
    "look_up_refund": lambda made: adapters.payment_gateway().look_up_refund(
        charge_id=made.charge_id, idempotency_key="order"
    ),
    "look_up of a parcel": lambda made: adapters.warehouse().look_up(idempotency_key=made.parcel_key),
    "find": lambda made: _sms().find(made.notification, since=LONG_AGO),
    "cancel": lambda made: adapters.payment_gateway().cancel(charge_id=made.charge_id),
    "charge": lambda _: charge(),
    "charge, declined": lambda _: charge(payment_method="pm_card_visa_chargeDeclined"),
    "charge, refused": lambda _: charge(payment_method="no such card"),
    "charge, too small": lambda _: charge(amount_minor=1),
    "refund": lambda _: _refund(charge().id),
    "refund, done before": lambda made: [_refund(made.charge_id), _refund(made.charge_id)],
    "ship": lambda _: ship(),
    "ship, refused": lambda _: ship(sku="NOSHIP-1"),
    "ship, malformed": lambda _: ship(country=""),
    "send SMS": lambda _: send(Channel.SMS),
    "send SMS, refused": lambda _: send(Channel.SMS, recipient="+15005550001"),
    "send SMS, malformed": lambda _: send(Channel.SMS, text=""),
    "send push": lambda _: send(Channel.PUSH, recipient="device"),
    "send push, refused": lambda _: send(Channel.PUSH, recipient="unregistered-device"),
}
"""The calls by name; each can be repeated."""


def _sms() -> Any:
    return channels.get(Channel.SMS)


def of_ports() -> Iterator[str]:
    """Return the names of all calls to a provider, from the ports."""
    for port in (ports.PaymentGateway, ports.Warehouse, notification_ports.ChannelAdapter):
        for name, _ in inspect.getmembers(port, inspect.isfunction):
            if not name.startswith("_") and name != "refusal_of":  # it makes no request
                yield name


def faults_of(value: Any) -> Iterator[str]:
    """Return what in an adapter's result could not be stored."""
    if isinstance(value, str):
        if "\x00" in value or value != value.encode(errors="replace").decode():
            yield f"text {value[:50]!r}"
    elif isinstance(value, bool) or value is None or isinstance(value, dt.datetime):
        return
    elif isinstance(value, int):
        if not 0 <= value <= LARGEST_AMOUNT:
            yield f"number {value}"
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            most = storable.LONGEST_NOTE if field.name == "message" else storable.LONGEST_ID
            if isinstance(inner, str) and len(inner) > most:
                yield f"{field.name} of {len(inner)} characters"
            yield from faults_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from faults_of(inner)
    else:
        yield f"{type(value).__name__}"
