"""
Entering again what providers did for an order and a restore has lost.

After a restore the providers know more than the database: charges, refunds and parcels without a row, under
keys that the providers may have dropped, too. So an order from before the restore is looked up under its own
references before any call is made. Orders that are older than a key's life are treated alike, with or without a
restore: for them a lost row would mean a second charge. Orders that are missing completely are found by
`comparison` and entered by `repairs`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import NamedTuple

from django.db import connection, transaction

from orders import adapters, claims, contracts, effects, moves, ports, services, stock
from orders.models import IdempotencyRecord, Order, OrderLine, Payment, Product, Shipment
from orders.transitions import STEP_DEADLINE, extend, fence, held, let_go, move, placed
from outbox import crash_points, publisher, telemetry
from outbox.database import clock, storable
from outbox.resilience import Permanent

BY = "restore"
"""The recorded requester of a cancellation that is known only from providers."""

NOTE = "found at the provider"

LONGEST_NUMBER = 20
"""Maximum length of an order's number."""


class StockForgotten(Permanent):
    """An order was charged, and the restored stock is too low for it: correct the stock."""


class Found(NamedTuple):
    """What the providers did for an order; a charge may also be refused or undecided."""

    charge: ports.Charge | None
    refund: ports.RefundReceipt | None
    parcel: ports.Parcel | None


def look_up(order: Order) -> Found:
    """
    Return what the providers know of a claimed order, by its own references.

    Raises:
        orders.transitions.Fenced: if another worker has claimed the order meanwhile.
        outbox.resilience.Transient: if a provider does not respond.
    """
    gateway = adapters.payment_gateway()
    charge = gateway.look_up(idempotency_key=effects.charge_key(order.pk))
    refund = None
    hold(order)
    if charge and charge.succeeded:
        refund = gateway.look_up_refund(charge_id=charge.id, idempotency_key=effects.refund_key(order.pk))
        hold(order)
    parcel = _parcel_of(order.pk)
    hold(order)
    return Found(charge, refund, parcel)


def _parcel_of(order_id: uuid.UUID) -> ports.Parcel | None:
    return adapters.warehouse().look_up(idempotency_key=effects.shipment_key(order_id))


def hold(order: Order) -> None:
    """
    Extend the lease of a claimed order, after one call and before the next.

    Raises:
        orders.transitions.Fenced: if another worker has claimed the order meanwhile.
    """
    extend(order)
    crash_points.reached("recovery.held")


def catch_up(order: Order) -> bool:
    """
    Look a claimed order up and enter what is found; return whether it was moved, by this or by another worker.

    Raises:
        StockForgotten: if it cannot be entered.
        orders.ports.ChargeDiffers: if another amount was charged, and no cancellation is requested.
        outbox.resilience.Transient: if a provider does not respond; no other call is made before it does.
    """
    with fence("catch_up"):
        found = look_up(order)
        with transaction.atomic(durable=True):
            before = order.status
            _enter(order, found)
        crash_points.reached("recovery.entered")
        if order.status != before:
            telemetry.emit("order.recovered", order_id=str(order.pk), before=before, after=str(order.status))
        return order.status != before
    return True


def catch_up_placed(order_id: str) -> bool:
    """Claim an order whose status is placed, and catch up on it; see `catch_up`."""
    order = claims.claim(order_id, only_from=frozenset({moves.Status.PLACED}))
    if order is None:
        return True
    crash_points.reached("recovery.claimed")
    with held(order):
        moved = catch_up(order)
    if not moved:
        let_go(order)
        crash_points.reached("recovery.let_go")
    return moved


def _enter(order: Order, found: Found) -> None:
    if order.status in moves.UNCHARGED and found.charge and not found.charge.is_decided:
        payment_of(order, found.charge)  # open: the step that cancels or charges the order waits for it
    captured = found.charge if found.charge and found.charge.succeeded else None
    if captured and order.status in moves.UNCHARGED and not order.cancel_requested_at:
        effects.check_amount(order, captured)
    if order.status == moves.Status.PLACED and captured:
        _reserve(order)
        move(order, to=moves.Status.VALIDATED, note=NOTE)
    if order.status in moves.UNCHARGED and captured:
        payment = payment_of(order, captured)
        move(order, to=moves.Status.CHARGED, note=NOTE, also=[effects.captured(payment, captured)])
    if order.status != moves.Status.CHARGED:
        return
    if found.parcel:
        shipment, _ = Shipment.objects.get_or_create(
            order=order, defaults={"idempotency_key": effects.shipment_key(order.pk)}
        )
        effects.ship(order, shipment, found.parcel)
    elif found.refund and not order.cancel_requested_at:
        services.ask_to_cancel(order, requested_by=BY)


def payment_of(order: Order, charge: ports.Charge) -> Payment:
    """Return the order's payment; create it again if it is lost."""
    payment, _ = Payment.objects.get_or_create(
        idempotency_key=effects.charge_key(order.pk),
        defaults={"order": order, "amount_minor": charge.amount_minor, "currency": charge.currency},
    )
    return payment


def _reserve(order: Order) -> None:
    try:
        stock.reserve(order)
    except stock.OutOfStock as short:
        raise StockForgotten(
            f"{order.number} is charged, and {short} is not in the restored stock: receive it, then replay"
        ) from short


# Orders that are missing completely ------------------------------------------------------------------


def ask(key: str) -> Found:
    """
    Return what the providers know of the order of a key.

    Raises:
        outbox.resilience.Transient: if a provider does not respond.
    """
    gateway, order_id = adapters.payment_gateway(), order_of(key)
    charge, refund = gateway.look_up(idempotency_key=effects.charge_key(order_id)), None
    if charge and charge.succeeded:
        refund = gateway.look_up_refund(charge_id=charge.id, idempotency_key=effects.refund_key(order_id))
    return Found(charge, refund, _parcel_of(order_id))


def enter_order(key: str, found: Found) -> str:
    """
    Enter an order that only the providers know, in the caller's transaction; return what happens to it.

    It is processed as usual, and its steps find what was done. A parcel contains what was ordered, so such an
    order ends as shipped. Without a parcel its contents are unknown: the order is cancelled and its charge
    refunded, or the refund found. Inconsistent cases, such as a parcel without a charge, are left to a person
    (empty result).
    """
    order_id = order_of(key)
    if not found.charge or not found.charge.succeeded or Order.objects.filter(pk=order_id).exists():
        return ""
    if not found.parcel:
        order = _write(order_id, found.charge, found.parcel, [])
        services.ask_to_cancel(order, requested_by=BY)
        return f"enter {order.number} ({order_id}), whose contents are lost, and cancel and refund it"
    lines = _lines(found.parcel, found.charge)
    if found.refund or not lines:
        return ""
    order = _write(order_id, found.charge, found.parcel, lines)
    return f"enter {order.number} ({order_id}) with its charge and its parcel"


def order_of(key: str) -> uuid.UUID:
    """Return the id of the order of one of our keys."""
    return uuid.UUID(key.removeprefix("order-")[:36])


def _write(
    order_id: uuid.UUID, charge: ports.Charge, parcel: ports.Parcel | None, lines: Sequence[OrderLine]
) -> Order:
    order = Order(
        pk=order_id,
        number=_number(parcel),
        source=claims.RECOVERED,
        country=storable.text(parcel.country if parcel else "", longest=60),
        payment_method=charge.payment_method,
        currency=charge.currency,
        total_minor=charge.amount_minor,
        due_at=clock.now() + STEP_DEADLINE,
    )
    order.message_id = publisher.publish(contracts.OrderPlaced.of(order))
    order.save(force_insert=True)
    for line in lines:
        line.order = order
    OrderLine.objects.bulk_create(lines)
    transition = placed(order)
    transition.note = "entered again after a restore, from what the providers know"
    transition.save()
    IdempotencyRecord.objects.create(scope=BY, key=str(order_id), fingerprint="", order=order)
    return order


def _number(parcel: ports.Parcel | None) -> str:
    """The number its customer knows, if it is in the parcel and not in use; otherwise a new one."""
    known = parcel.order_number if parcel else ""
    if 0 < len(known) <= LONGEST_NUMBER and not Order.objects.filter(number=known).exists():
        return known
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('orders_number')")
        return f"OF-{cursor.fetchone()[0]}"


def _lines(parcel: ports.Parcel, charge: ports.Charge) -> list[OrderLine]:
    """The ordered lines according to the parcel, with prices that add up to the charge; empty if impossible."""
    products = Product.objects.filter(currency=charge.currency).in_bulk(
        [sku for sku, _ in parcel.lines], field_name="sku"
    )
    if not parcel.lines or len(products) < len({sku for sku, _ in parcel.lines}):
        return []
    lines = [
        OrderLine(product=products[sku], quantity=quantity, unit_price_minor=products[sku].price_minor)
        for sku, quantity in parcel.lines
    ]
    if len(lines) == 1 and charge.amount_minor % lines[0].quantity == 0:
        lines[0].unit_price_minor = charge.amount_minor // lines[0].quantity
    return lines if sum(line.total_minor for line in lines) == charge.amount_minor else []
