"""
The way back: cancel, refund, and give back what was charged after its order had ended.

Same rules as in `steps`: claim, write down what is about to be asked, ask between the transactions
under a key, write down the answer unless somebody else has moved the order on.
"""

from __future__ import annotations

import datetime as dt

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from orders import claims, contracts, moves, ports, stock
from orders.models import Order, Payment, Refund, Shipment
from orders.services import facts
from orders.steps import capture, note_shipped
from orders.transitions import fence, held, move
from outbox import crash_points, publisher
from outbox.resilience import NotNow, Permanent

LOOK_UP_LAG = dt.timedelta(minutes=2)
"""How long after a call the provider's search may not know of it yet. Stripe says that its search follows
within a minute under normal conditions."""


class RefundImpossible(Permanent):
    """The order is to be refunded but no captured charge of it is known."""


def cancel(*, order_id: str, gateway: ports.PaymentGateway, warehouse: ports.Warehouse) -> bool:
    """
    Cancel an order that somebody asked to cancel: at once if it is not charged, else by way of a refund.

    What a step that died may have done is looked up first: a parcel that has left stays shipped.

    Raises:
        NotNow: while a step is at work on the order, or a charge may not be found yet.
    """
    order = claims.claim(order_id, only_from=moves.CANCELLABLE, cancelling=True)
    if order is None:
        return _wait_for_step(order_id)
    crash_points.reached("cancel.claimed")
    payment = Payment.objects.filter(order=order).order_by("-pk").first()
    with held(order):
        if payment and payment.is_open:
            found = gateway.look_up(idempotency_key=payment.idempotency_key)
            if found is None:
                _wait_until_findable(payment)
            return _cancel_looked_up(order, payment, found)
        shipment = Shipment.objects.filter(order=order, status=Shipment.Status.REQUESTED).first()
        if shipment and (parcel := warehouse.look_up(idempotency_key=shipment.idempotency_key)):
            return note_shipped(order, shipment, parcel)
        return _end(order)


def _wait_for_step(order_id: str) -> bool:
    order = Order.objects.get(pk=order_id)
    if order.status in moves.CANCELLABLE and order.lease_until:
        raise NotNow(f"a step is at work on {order.number}", retry_after=dt.timedelta(seconds=2))
    return False


def _wait_until_findable(payment: Payment) -> None:
    """A call whose answer was lost may have charged although the search does not say so yet."""
    if payment.last_asked_at is None:
        return
    rest = payment.last_asked_at + LOOK_UP_LAG - timezone.now()
    if rest > dt.timedelta():
        raise NotNow(f"{payment.idempotency_key} cannot be looked up reliably yet", retry_after=rest)


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
    if order.status == moves.Status.CHARGED:
        move(order, to=moves.Status.CANCELLING, reason="cancelled on request")
        return True
    if order.status != moves.Status.PLACED:
        stock.release(order)
    move(order, to=moves.Status.CANCELLED, reason="cancelled on request")
    publisher.publish(contracts.OrderCancelled(**facts(order), reason=order.reason))
    return True


def refund(*, order_id: str, gateway: ports.PaymentGateway) -> bool:
    """Give the charge of a cancelling order back once, free its stock, and end it."""
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
        receipt = _ask_for_refund(gateway, payment, intent)
    crash_points.reached("refund.answered")
    with fence("refund"), transaction.atomic(durable=True):
        _note_refund(intent, receipt)
        stock.release(order)
        move(order, to=moves.Status.CANCELLED)
        publisher.publish_many(
            [
                contracts.OrderRefunded(**facts(order), refunded_minor=receipt.amount_minor),
                contracts.OrderCancelled(**facts(order), reason=order.reason),
            ]
        )
        return True
    return False


def refund_stranded(*, order_id: str, gateway: ports.PaymentGateway) -> bool:
    """Give back a charge that went through after its order had ended."""
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
    receipt = _ask_for_refund(gateway, payment, intent)
    crash_points.reached("stranded.answered")
    with transaction.atomic(durable=True):
        if not _note_refund(intent, receipt):
            return False
        publisher.publish(contracts.OrderRefunded(**facts(payment.order), refunded_minor=receipt.amount_minor))
    return True


def _intend_refund(payment: Payment) -> Refund:
    intent, _ = Refund.objects.get_or_create(
        payment=payment,
        defaults={
            "idempotency_key": f"order-{payment.order_id}-refund",
            "amount_minor": payment.amount_minor,
            "currency": payment.currency,
        },
    )
    return intent


def _ask_for_refund(gateway: ports.PaymentGateway, payment: Payment, intent: Refund) -> ports.RefundReceipt:
    return gateway.refund(
        charge_id=payment.provider_id,
        amount_minor=intent.amount_minor,
        idempotency_key=intent.idempotency_key,
    )


def _note_refund(intent: Refund, receipt: ports.RefundReceipt) -> bool:
    return bool(
        Refund.objects.filter(pk=intent.pk, status=Refund.Status.REQUESTED).update(
            status=Refund.Status.SUCCEEDED, provider_id=receipt.id, resolved_at=Now()
        )
    )
