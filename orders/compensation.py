"""
The steps that undo an order: cancel it, refund it, and refund what was charged after it had ended.

They follow the same rules as `steps`: claim the order, record what is about to be requested, make the call
between two transactions under a key, and record the answer unless another worker has moved the order on.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Now

from orders import claims, contracts, effects, moves, ports, stock, undecided
from orders.contracts.currencies import written
from orders.dead_letters import needless
from orders.effects import capture, note_shipped
from orders.models import Order, Payment, Refund, Shipment
from orders.reconciliation import recovery
from orders.transitions import fence, held, move
from outbox import crash_points, publisher
from outbox.resilience import NotNow, Permanent

LOOK_UP_LAG = dt.timedelta(minutes=2)
"""How long after a call the provider's search may not find its result yet. Stripe states that under normal
conditions its search is up to date within a minute."""

REFUND_WAIT = dt.timedelta(minutes=5)
"""How long to wait before looking up again a refund that is not completed yet. Banks take days."""


class RefundImpossible(Permanent):
    """The order is to be refunded, but no captured charge of it is known."""


def cancel(*, order_id: str, gateway: ports.PaymentGateway, warehouse: ports.Warehouse) -> bool:
    """
    Cancel an order whose cancellation was requested: at once if it is not charged, otherwise with a refund.

    What a step that died may have done is looked up first, as is what may have been done for an order from
    before a restore. An order whose parcel has left stays shipped.

    Raises:
        NotNow: while a step works on the order, or while a charge may not be found yet or may still be
        captured.
    """
    order = claims.claim(order_id, only_from=moves.CANCELLABLE, cancelling=True)
    if order is None:
        return _wait_for_step(order_id)
    crash_points.reached("cancel.claimed")
    if order.is_from_before:
        with held(order):
            if recovery.catch_up(order):
                return cancel(order_id=order_id, gateway=gateway, warehouse=warehouse)
    payment = Payment.objects.filter(order=order).order_by("-pk").first()
    with held(order), fence("cancel"):
        if payment and payment.is_open:
            found = gateway.look_up(idempotency_key=payment.idempotency_key)
            if found is None:
                _wait_until_findable(payment)
            elif not found.is_decided:
                found = _called_off(gateway, order, payment, found)
            return _cancel_looked_up(order, payment, found)
        shipment = Shipment.objects.filter(order=order, status=Shipment.Status.REQUESTED).first()
        if shipment and (parcel := warehouse.look_up(idempotency_key=shipment.idempotency_key)):
            return note_shipped(order, shipment, parcel)
        return _end(order)
    return False


def _wait_for_step(order_id: str) -> bool:
    order = Order.objects.get(pk=order_id)
    if order.status in moves.CANCELLABLE and order.lease_until:
        raise NotNow(f"a step is working on {order.number}", retry_after=dt.timedelta(seconds=2))
    return False


def _wait_until_findable(payment: Payment) -> None:
    """A call whose answer was lost may have charged although the search does not find the charge yet."""
    rest = (
        Payment.objects.filter(pk=payment.pk, last_asked_at__gt=Now() - Value(LOOK_UP_LAG))
        .values_list(F("last_asked_at") + Value(LOOK_UP_LAG) - Now(), flat=True)
        .first()
    )
    if rest:
        raise NotNow(f"{payment.idempotency_key} cannot be looked up reliably yet", retry_after=rest)


def _called_off(
    gateway: ports.PaymentGateway, order: Order, payment: Payment, found: ports.Charge
) -> ports.Charge:
    if found.state is ports.ChargeState.PENDING:
        raise undecided.waiting(order, payment, found)
    called_off = undecided.call_off(gateway, order, payment, found)
    crash_points.reached("cancel.called_off")
    return called_off


def _cancel_looked_up(order: Order, payment: Payment, found: ports.Charge | None) -> bool:
    with fence("cancel"), transaction.atomic(durable=True):
        if found and found.succeeded:
            capture(payment, found)
            move(order, to=moves.Status.CHARGED, note="the charge was found at the provider")
        else:
            Payment.objects.filter(pk=payment.pk).update(
                status=Payment.Status.DECLINED if found else Payment.Status.ABANDONED, resolved_at=Now()
            )
        return _move_to_end(order)
    return False


def _end(order: Order) -> bool:
    with fence("cancel"), transaction.atomic(durable=True):
        return _move_to_end(order)
    return False


def _move_to_end(order: Order) -> bool:
    needless.close_needless(order)
    if order.status == moves.Status.CHARGED:
        move(order, to=moves.Status.CANCELLING, reason="cancelled on request")
        return True
    if order.status != moves.Status.PLACED:
        stock.release(order)
    move(order, to=moves.Status.CANCELLED, reason="cancelled on request")
    publisher.publish(contracts.OrderCancelled.of(order, reason=order.reason))
    return True


def refund(*, order_id: str, gateway: ports.PaymentGateway) -> bool:
    """Refund the charge of an order that is being cancelled, once, release its stock, and end it."""
    with transaction.atomic(durable=True):
        order = claims.claim(order_id, only_from=frozenset({moves.Status.CANCELLING}), cancelling=True)
        if order is None:
            return False
        payment = Payment.objects.filter(order=order, status=Payment.Status.SUCCEEDED).first()
        if payment:
            intent = _intend_refund(payment)
    crash_points.reached("refund.intended")
    with held(order):
        if payment is None:
            raise RefundImpossible(f"{order.number} is being cancelled but has no captured charge")
        found = _refunded_before(gateway, order, payment)
        receipt = _ask_for_refund(gateway, payment, intent, found=found)
    crash_points.reached("refund.answered")
    with fence("refund"), transaction.atomic(durable=True):
        _note_refund(intent, receipt)
        stock.release(order)
        move(order, to=moves.Status.CANCELLED)
        publisher.publish_many(
            [
                contracts.OrderRefunded.of(order, refunded_minor=receipt.amount_minor),
                contracts.OrderCancelled.of(order, reason=order.reason),
            ]
        )
        return True
    return False


def refund_stranded(*, order_id: str, gateway: ports.PaymentGateway) -> bool:
    """Refund a charge that succeeded after its order had ended."""
    with transaction.atomic(durable=True):
        payment = (
            Payment.objects.select_related("order")
            .filter(order_id=order_id, status=Payment.Status.SUCCEEDED)
            .exclude(refund__status=Refund.Status.SUCCEEDED)
            .first()
        )
        if payment is None or payment.order.status not in (moves.Status.REJECTED, moves.Status.CANCELLED):
            return False
        intent = _intend_refund(payment)
    crash_points.reached("stranded.intended")
    receipt = _ask_for_refund(gateway, payment, intent, found=_found_refund(gateway, payment))
    crash_points.reached("stranded.answered")
    with transaction.atomic(durable=True):
        if not _note_refund(intent, receipt):
            return False
        publisher.publish(contracts.OrderRefunded.of(payment.order, refunded_minor=receipt.amount_minor))
    return True


def _intend_refund(payment: Payment) -> Refund:
    """
    Record the intent to refund the charge, under a key of its own.

    A refund that failed has certainly returned no money, and its key is used up: the provider would only repeat
    its answer. A person who has the work done again gets the next key.
    """
    key = effects.refund_key(payment.order_id)
    intent, _ = Refund.objects.get_or_create(
        payment=payment,
        defaults={
            "idempotency_key": key,
            "amount_minor": payment.amount_minor,
            "currency": payment.currency,
        },
    )
    if intent.status == Refund.Status.FAILED:
        intent.status, intent.idempotency_key = Refund.Status.REQUESTED, f"{key}-{intent.failures + 1}"
        intent.requested_at, intent.resolved_at = Now(), None
        intent.save(update_fields=["status", "idempotency_key", "requested_at", "resolved_at"])
    return intent


def _refunded_before(
    gateway: ports.PaymentGateway, order: Order, payment: Payment
) -> ports.RefundReceipt | None:
    """Find a refund that the database does not have, or that its provider would make a second time."""
    if not order.is_from_before:
        return None
    found = _found_refund(gateway, payment)
    recovery.hold(order)
    return found


def _found_refund(gateway: ports.PaymentGateway, payment: Payment) -> ports.RefundReceipt | None:
    return gateway.look_up_refund(
        charge_id=payment.provider_id, idempotency_key=effects.refund_key(payment.order_id)
    )


def _ask_for_refund(
    gateway: ports.PaymentGateway, payment: Payment, intent: Refund, *, found: ports.RefundReceipt | None
) -> ports.RefundReceipt:
    """
    Return the outcome of the refund: of the one that was `found`, or else of a new one.

    Raises:
        orders.ports.RefundUndecided: while the provider has not returned the money yet.
        orders.ports.RefundFailed: if it never will.
        orders.ports.RefundDiffers: if it has refunded another amount.
    """
    receipt = found or gateway.refund(
        charge_id=payment.provider_id,
        amount_minor=intent.amount_minor,
        currency=intent.currency,
        idempotency_key=intent.idempotency_key,
    )
    if receipt.state is ports.RefundState.PENDING:
        _note_not_done(intent, receipt)
        raise ports.RefundUndecided(receipt.message, retry_after=REFUND_WAIT)
    if receipt.state is ports.RefundState.FAILED:
        failed = {"status": Refund.Status.FAILED, "failures": F("failures") + 1, "resolved_at": Now()}
        _note_not_done(intent, receipt, **failed)
        raise ports.RefundFailed(receipt.message)
    if receipt.amount_minor != intent.amount_minor:
        _note_not_done(intent, receipt)
        was, wanted = (written(minor, intent.currency) for minor in (receipt.amount_minor, intent.amount_minor))
        raise ports.RefundDiffers(
            f"{receipt.id} has refunded {was} instead of {wanted}: refund the rest by other means, and "
            "discard the dead letter as refunded elsewhere"
        )
    return receipt


def _note_not_done(intent: Refund, receipt: ports.RefundReceipt, **changes: Any) -> None:
    crash_points.reached("refund.not_done")
    Refund.objects.filter(pk=intent.pk, status=Refund.Status.REQUESTED).update(
        provider_id=receipt.id, error=receipt.message, **changes
    )


def _note_refund(intent: Refund, receipt: ports.RefundReceipt) -> bool:
    return bool(
        Refund.objects.filter(pk=intent.pk, status=Refund.Status.REQUESTED).update(
            status=Refund.Status.SUCCEEDED, provider_id=receipt.id, error="", resolved_at=Now()
        )
    )
