"""
The steps of an order: validate → charge → fulfill. `compensation` has the steps that undo them.

Each step runs at least once and takes effect at most once. A step without a call to a provider is one
transaction. A step with such a call claims the order, records what it is about to request, makes the call
between two transactions under a key that the provider recognises, and records the answer unless it was fenced
off. A step that finds nothing to do returns False.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce, Now

from orders import claims, contracts, effects, moves, ports, services, stock, undecided
from orders.claims import KEY_WINDOW
from orders.effects import capture, captured, note_shipped
from orders.models import Order, Payment, Shipment
from orders.reconciliation import recovery
from orders.services import Refusal
from orders.transitions import extend, fence, held, let_go, move, publishing
from outbox import crash_points, publisher, telemetry
from outbox.resilience import Permanent, Transient


class ChargeUntraceable(Permanent):
    """A charge was requested, its key has expired, and the provider does not know of the charge."""


# validate ------------------------------------------------------------------------------------------


def validate(*, order_id: str, refusal: Refusal = services.no_refusal) -> bool:
    """
    Check the order and reserve its stock, or reject it with the reason.

    `refusal` returns why an amount cannot be charged. It is asked first, because a refused order must not hold
    stock. `recovery` describes what happens to old orders.
    """
    with fence("validate"), transaction.atomic(durable=True):
        order, lines = claims.read_to_validate(order_id)
        if order.status != moves.Status.PLACED or order.cancel_requested_at:
            return False
        if not order.is_from_before:
            return _validate(order, lines, refusal)
    if recovery.catch_up_placed(order_id):
        return True
    with fence("validate"), transaction.atomic(durable=True):
        order, lines = claims.read_to_validate(order_id)
        if order.status != moves.Status.PLACED or order.cancel_requested_at:
            return False
        return _validate(order, lines, refusal)
    return False


def _validate(order: Order, lines: claims.Lines, refusal: Refusal) -> bool:
    problem = _problem_with(order, lines) or refusal(order.total_minor, order.currency)
    if not problem and lines.short_skus:
        problem = f"not in stock: {', '.join(lines.short_skus)}"
    if problem:
        _reject(order, reason=problem)
    else:
        move(order, to=moves.Status.VALIDATED, also=[stock.reserved(order)])
    return True


def _problem_with(order: Order, lines: claims.Lines) -> str:
    if not lines.number:
        return "the order has no lines"
    if lines.have_other_currencies:
        return f"not all products are sold in {order.currency}"
    if lines.total_minor != order.total_minor:
        return "the total is not the sum of the lines"
    if order.total_minor <= 0:
        return "the total is zero"
    if not services.COUNTRY.fullmatch(order.country):
        return "there is no country to ship it to"
    if order.total_minor > settings.LARGEST_ORDER_MINOR:
        return "the total is above the limit for an order without approval"
    return ""


# charge --------------------------------------------------------------------------------------------


def charge(*, order_id: str, gateway: ports.PaymentGateway) -> bool:
    """
    Charge the order once.

    A declined card rejects the order. If the outcome is unknown, the charge is looked up, now or at the next
    attempt; if it may still be captured, the step waits for it. Meanwhile the order is `charge_unknown`, and no
    other key is ever used. An order is not rejected while its charge may still be captured, and does not
    continue if another amount was captured. If the order is from before a restore, or older than the lifetime
    of a key, everything is looked up before anything is requested.
    """
    key = effects.charge_key(order_id)
    claimed = claims.claim_to_charge(order_id, key=key)
    if claimed is None:
        return False
    order, payment, is_new = claimed
    crash_points.reached("charge.intended")
    asked_before = not is_new and payment.first_asked_at is not None
    done = None
    with fence("charge"), held(order):
        if order.is_from_before and _caught_up(order, payment, is_new=is_new):
            return True
        try:
            done = gateway.look_up(idempotency_key=key) if asked_before or order.is_from_before else None
            if done is None:
                if not is_new:
                    _prepare_to_ask_again(order, payment)
                elif order.is_from_before:
                    recovery.hold(order)
                done = _ask_for_charge(gateway, order, payment)
            done = undecided.decide(gateway, order, payment, done)
            effects.check_amount(order, done)
        except ports.PaymentDeclined as declined:
            done = _refused(payment, declined)
        except (Transient, Permanent) as failure:
            if done or ports.may_have_acted(failure):
                _note_unknown(order, payment, failure)
            elif not asked_before:
                _note_without_effect(payment)
            raise
    return bool(done) and _finish_charge(order, payment, done)


def _caught_up(order: Order, payment: Payment, *, is_new: bool) -> bool:
    try:
        return recovery.catch_up(order)
    except (Transient, Permanent):
        if is_new:
            _note_without_effect(payment)  # so far it was only looked up
        raise


def _prepare_to_ask_again(order: Order, payment: Payment) -> None:
    """
    Raises:
        orders.transitions.Fenced: if the look-up took so long that another worker has taken the order.
        ChargeUntraceable: if an earlier call may have charged so long ago that its key has expired.
    """
    remembered = Q(first_asked_at__isnull=True) | Q(first_asked_at__gte=Now() - Value(KEY_WINDOW))
    with transaction.atomic(durable=True):
        extend(order)
        noted = Payment.objects.filter(remembered, pk=payment.pk).update(
            calls=F("calls") + 1, first_asked_at=Coalesce("first_asked_at", Now()), last_asked_at=Now()
        )
        if not noted:
            raise ChargeUntraceable(
                f"{payment.idempotency_key} was first requested at {payment.first_asked_at:%Y-%m-%d %H:%M} "
                "UTC; look for it at the provider by hand, then replay or discard"
            )
    payment.calls += 1
    crash_points.reached("charge.asking_again")


def _ask_for_charge(gateway: ports.PaymentGateway, order: Order, payment: Payment) -> ports.Charge:
    return gateway.charge(
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        payment_method=order.payment_method,
        order_id=str(order.pk),
        idempotency_key=payment.idempotency_key,
    )


def _refused(payment: Payment, declined: ports.PaymentDeclined) -> ports.Charge:
    return ports.Charge(
        id="",
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        state=ports.ChargeState.REFUSED,
        decline_code=declined.code,
        message=str(declined),
    )


def _note_without_effect(payment: Payment) -> None:
    """
    Forget when the charge was requested: the provider has certainly done nothing, so its keys do not matter.

    A worker that has taken the order over since then has counted its own call, which is not forgotten.
    """
    crash_points.reached("charge.without_effect")
    Payment.objects.filter(pk=payment.pk, calls=payment.calls).update(first_asked_at=None, last_asked_at=None)


def _note_unknown(order: Order, payment: Payment, unknown: Exception) -> None:
    crash_points.reached("charge.unanswered")
    with fence("charge"), transaction.atomic(durable=True):
        Payment.objects.filter(pk=payment.pk, status__in=Payment.OPEN).update(
            status=Payment.Status.UNKNOWN, error=str(unknown), **_held(unknown)
        )
        if order.status != moves.Status.CHARGE_UNKNOWN:
            move(order, to=moves.Status.CHARGE_UNKNOWN, note=str(unknown))
        else:
            let_go(order)


def _held(unknown: Exception) -> dict[str, Any]:
    """Return since when a person has to act at the provider. A call without an answer changes nothing."""
    if isinstance(unknown, ports.ChargeHeld):
        return {"held_since": Coalesce("held_since", Now())}
    return {"held_since": None} if isinstance(unknown, ports.ChargeUndecided) else {}


def _finish_charge(order: Order, payment: Payment, done: ports.Charge) -> bool:
    crash_points.reached("charge.answered")
    if done.succeeded:
        with fence("charge"):
            move(order, to=moves.Status.CHARGED, also=[captured(payment, done)])
            return True
        _recover_stranded(order, payment, done)
        return False
    with fence("charge"), transaction.atomic(durable=True):
        Payment.objects.filter(pk=payment.pk).update(
            status=Payment.Status.DECLINED,
            provider_id=done.id,
            decline_code=done.decline_code,
            error=done.message,
            resolved_at=Now(),
        )
        stock.release(order)
        _reject(order, reason=f"payment declined: {done.message or done.decline_code}")
        return True
    return False


def _recover_stranded(order: Order, payment: Payment, done: ports.Charge) -> None:
    """The charge succeeded but this step was fenced off: record it, and refund it if the order has ended."""
    with transaction.atomic(durable=True):
        now = Order.objects.select_for_update(no_key=True).get(pk=order.pk)
        if now.status in (moves.Status.REJECTED, moves.Status.CANCELLED):
            capture(payment, done)
            publisher.publish(contracts.ChargeStranded.of(now))
            telemetry.emit("charge.stranded", order_id=str(order.pk))


# fulfill -------------------------------------------------------------------------------------------


def fulfill(*, order_id: str, warehouse: ports.Warehouse) -> bool:
    """Ship the order once. If the warehouse refuses, cancel it and refund the charge."""
    claimed = claims.claim_to_ship(order_id, key=effects.shipment_key(order_id))
    if claimed is None:
        return False
    order, shipment, is_new, quantities = claimed
    crash_points.reached("fulfill.intended")
    with held(order):
        if order.is_from_before and recovery.catch_up(order):
            return True
        try:
            parcel = warehouse.ship(
                order_id=str(order.pk),
                order_number=order.number,
                country=order.country,
                lines=sorted(quantities.items()),
                idempotency_key=shipment.idempotency_key,
            )
        except ports.ShipmentRefused as refused:
            return _compensate(order, shipment, reason=str(refused))
        except (Transient, Permanent) as failure:
            if is_new and not ports.may_have_acted(failure):
                _forget_shipment(order, shipment)
            raise
    crash_points.reached("fulfill.answered")
    return note_shipped(order, shipment, parcel)


def _forget_shipment(order: Order, shipment: Shipment) -> None:
    """Nothing was requested, so there is nothing to look up, unless another worker ships the order by now."""
    crash_points.reached("fulfill.without_effect")
    with fence("fulfill"), transaction.atomic(durable=True):
        extend(order)
        shipment.delete()


def _compensate(order: Order, shipment: Shipment, *, reason: str) -> bool:
    crash_points.reached("fulfill.refused")
    with fence("fulfill"), transaction.atomic(durable=True):
        Shipment.objects.filter(pk=shipment.pk).update(
            status=Shipment.Status.REFUSED, error=reason, resolved_at=Now()
        )
        message_id = publisher.publish(contracts.FulfillmentFailed.of(order, reason=reason))
        move(order, to=moves.Status.CANCELLING, reason=f"cannot be shipped: {reason}", message_id=message_id)
        return True
    return False


def _reject(order: Order, *, reason: str) -> None:
    rejected = contracts.OrderRejected.of(order, reason=reason)
    move(order, to=moves.Status.REJECTED, reason=reason, also=[publishing(rejected)])
