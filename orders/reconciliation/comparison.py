"""
Comparison of the providers' records of charges, refunds and shipments with our books.

The books are read first, in the snapshot; the provider is queried afterwards. So everything that took effect in
our books must be in the list, while records in the list may be too new for our books, or still in progress.
Records without one of our keys, in a shared account, are ignored.
"""

from __future__ import annotations

import collections
import datetime as dt
import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from orders import adapters, moves, ports
from orders.claims import KEY_WINDOW
from orders.models import Order, Payment, Refund, Shipment
from orders.reconciliation import recovery
from orders.sweep import LONGEST_PAUSE
from outbox.models import Restore
from outbox.verification.catalogue import Row, Snapshot

Listed = TypeVar("Listed", ports.ListedCharge, ports.ListedRefund, ports.ListedParcel)

MARGIN = KEY_WINDOW + dt.timedelta(hours=2)
"""How much older than `since` the request of a later effect may be: the life of its key, plus a margin."""

IN_FLIGHT = LONGEST_PAUSE
"""Newer records may still be missing in our books."""

RESOLUTION = dt.timedelta(seconds=1)
"""Providers give the second in which a record was made: it may be up to this much newer."""

OURS = re.compile(r"order-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-(charge|refund(-[0-9]+)?|shipment)")

OPEN = (Payment.Status.REQUESTED, Payment.Status.UNKNOWN)

ENDED_UNSHIPPED = (moves.Status.REJECTED, moves.Status.CANCELLED)

CHARGES = """
    SELECT payment.idempotency_key, payment.status, payment.provider_id, payment.amount_minor,
           payment.currency, payment.requested_at, o.number, o.status AS order_status, o.finished_at
    FROM orders_payment AS payment JOIN orders_order AS o ON o.id = payment.order_id
    WHERE payment.requested_at >= %(since)s::timestamptz - %(margin)s
"""

REFUNDS = """
    SELECT refund.idempotency_key, refund.status, refund.provider_id, refund.amount_minor,
           refund.currency, refund.requested_at, refund.given_back_by
    FROM orders_refund AS refund WHERE refund.requested_at >= %(since)s::timestamptz - %(margin)s
"""

SHIPMENTS = """
    SELECT shipment.idempotency_key, shipment.status, shipment.provider_id, shipment.requested_at,
           o.number, o.finished_at
    FROM orders_shipment AS shipment JOIN orders_order AS o ON o.id = shipment.order_id
    WHERE shipment.requested_at >= %(since)s::timestamptz - %(margin)s
"""


def values() -> dict[str, dt.timedelta]:
    """Return the parameters of the queries above."""
    return {"margin": MARGIN}


# In our books, missing at the provider ---------------------------------------------------------------


def charges_missing_there(books: list[Row], snapshot: Snapshot) -> Iterable[str]:
    """Our captured charges that are not captured at the provider with this amount and currency."""
    known = {(charge.id, charge.amount_minor, charge.currency) for charge in _captured(snapshot)}
    for row in _took_effect(books, Payment.Status.SUCCEEDED, snapshot):
        if (row["provider_id"], row["amount_minor"], row["currency"]) not in known:
            yield row["idempotency_key"]


def refunds_missing_there(books: list[Row], snapshot: Snapshot) -> Iterable[str]:
    """Our refunds that are not done at the provider with this amount and currency."""
    done = [refund for refund in _refunds(snapshot) if refund.state is ports.RefundState.DONE]
    known = {(refund.id, refund.amount_minor, refund.currency) for refund in done}
    for row in _took_effect(
        [row for row in books if not row["given_back_by"]], Refund.Status.SUCCEEDED, snapshot
    ):
        if (row["provider_id"], row["amount_minor"], row["currency"]) not in known:
            yield row["idempotency_key"]


def shipments_missing_there(books: list[Row], snapshot: Snapshot) -> Iterable[str]:
    """Our shipments that the warehouse does not have."""
    known = {parcel.id for parcel in _parcels(snapshot)}
    for row in _took_effect(books, Shipment.Status.SHIPPED, snapshot):
        if row["provider_id"] not in known:
            yield row["idempotency_key"]


# At the provider, missing in our books ---------------------------------------------------------------


def charges_made_twice(books: list[Row], snapshot: Snapshot) -> Iterable[str]:
    """Keys under which the provider has more than one captured, unrefunded charge."""
    kept = collections.Counter(charge.idempotency_key for charge in _kept(snapshot))
    return [key for key, count in kept.items() if count > 1]


def charges_missing_here(books: list[Row], snapshot: Snapshot) -> Iterable[str]:
    """Captured, unrefunded charges at the provider that are missing in our books, except for ended orders."""
    ours = {row["idempotency_key"]: row for row in books}
    twice = set(charges_made_twice(books, snapshot))
    for charge in _settled(_kept(snapshot), snapshot):
        row = ours.get(charge.idempotency_key)
        if charge.idempotency_key in twice:
            continue
        if row is None:
            order = _order(charge)
            if order is None or order.status == moves.Status.FULFILLED:
                yield charge.idempotency_key
        elif row["status"] == Payment.Status.SUCCEEDED:
            if row["provider_id"] != charge.id:
                yield charge.idempotency_key
        elif row["order_status"] not in ENDED_UNSHIPPED and row["status"] not in OPEN:
            yield charge.idempotency_key


def charges_stranded(books: list[Row], snapshot: Snapshot) -> Iterable[str]:
    """Orders that ended unshipped, with a charge at the provider that is missing in our books."""
    ours = {row["idempotency_key"]: row for row in books}
    for charge in _settled(_kept(snapshot), snapshot):
        row = ours.get(charge.idempotency_key)
        if row is None:
            order = _order(charge)
            if order and order.status in ENDED_UNSHIPPED and _long_ago(order.finished_at, snapshot):
                yield order.number
        elif (
            row["status"] != Payment.Status.SUCCEEDED
            and row["order_status"] in ENDED_UNSHIPPED
            and _long_ago(row["finished_at"], snapshot)
        ):
            yield row["number"]


def refunds_missing_here(books: list[Row], snapshot: Snapshot) -> Iterable[str]:
    """Refunds at the provider under our keys that our books do not have, or have as made by other means."""
    ours = {row["idempotency_key"]: row for row in books}
    for refund in _settled(_refunds(snapshot), snapshot):
        row = ours.get(refund.idempotency_key)
        if row and row["given_back_by"]:
            # A part of it is not given back twice.
            if refund.state is ports.RefundState.DONE and refund.amount_minor >= row["amount_minor"]:
                yield refund.idempotency_key
            continue
        on_its_way = row["status"] == Refund.Status.REQUESTED if row else _goes_on(refund)
        if not on_its_way and (row is None or row["provider_id"] != refund.id):
            yield refund.idempotency_key


def shipments_missing_here(books: list[Row], snapshot: Snapshot) -> Iterable[str]:
    """Shipments at the warehouse under our keys that are not shipped in our books."""
    ours = {row["idempotency_key"]: row for row in books}
    for parcel in _settled(_parcels(snapshot), snapshot):
        row = ours.get(parcel.idempotency_key)
        asked_for = row is None or row["status"] == Shipment.Status.REQUESTED
        on_its_way = asked_for and (row["finished_at"] is None if row else _goes_on(parcel))
        if not on_its_way and (row is None or row["provider_id"] != parcel.id):
            yield parcel.idempotency_key


# shared --------------------------------------------------------------------------------------------


def _took_effect(books: list[Row], status: str, snapshot: Snapshot) -> Iterator[Row]:
    """Our rows that took effect; those in the margin before `since` are only for the other direction."""
    for row in books:
        if row["status"] == status and (snapshot.since is None or row["requested_at"] >= snapshot.since):
            yield row


def _settled(records: Iterable[Listed], snapshot: Snapshot) -> Iterator[Listed]:
    """Records with one of our keys, since the run's `since`, and old enough to be in our books."""
    for record in records:
        old_enough = _long_ago(record.made_at, snapshot)
        young_enough = snapshot.since is None or record.made_at + RESOLUTION > snapshot.since
        if old_enough and young_enough and OURS.fullmatch(record.idempotency_key):
            yield record


def _long_ago(at: dt.datetime | None, snapshot: Snapshot) -> bool:
    """Whether our books must have it by now, or never will: it happened before the database was restored."""
    restored = snapshot.once("restore", lambda: Restore.objects.order_by("-noted_at")[:1])
    known_since = max([snapshot.at - IN_FLIGHT, *(restore.noted_at for restore in restored)])
    return at is not None and at < known_since


def _order(record: Listed) -> Order | None:
    """The order of a provider's record, in its current state."""
    return Order.objects.filter(pk=recovery.order_of(record.idempotency_key)).first()


def _goes_on(record: Listed) -> bool:
    """Whether a later step of the order will look the record up."""
    order = _order(record)
    return order is not None and not order.is_final


def _captured(snapshot: Snapshot) -> list[ports.ListedCharge]:
    return [charge for charge in _charges(snapshot) if charge.succeeded]


def _kept(snapshot: Snapshot) -> list[ports.ListedCharge]:
    """Captured charges under our keys that are neither fully refunded nor about to be."""
    returned: collections.Counter[str] = collections.Counter()
    for refund in _refunds(snapshot):
        returned[refund.charge_id] += refund.amount_minor
    return [
        charge
        for charge in _captured(snapshot)
        if OURS.fullmatch(charge.idempotency_key) and returned[charge.id] < charge.amount_minor
    ]


def _charges(snapshot: Snapshot) -> list[ports.ListedCharge]:
    return snapshot.once("charges", lambda: adapters.payment_gateway().charges(since=_since(snapshot)))


def _refunds(snapshot: Snapshot) -> list[ports.ListedRefund]:
    return snapshot.once("refunds", lambda: adapters.payment_gateway().refunds(since=_since(snapshot)))


def _parcels(snapshot: Snapshot) -> list[ports.ListedParcel]:
    return snapshot.once("shipments", lambda: adapters.warehouse().shipments(since=_since(snapshot)))


def _since(snapshot: Snapshot) -> dt.datetime | None:
    return snapshot.since - MARGIN if snapshot.since else None
