"""
The steps of an order: validate → charge → fulfill. The way back is in `compensation`.

Each runs at least once and takes effect at most once. A step without an outside call is one
transaction. One with a call claims the order, writes down what it is about to ask, asks between the
transactions under a key the outside recognises, and writes down the answer if nobody fenced it off.
A step that finds nothing to do returns False.
"""

from __future__ import annotations

import datetime as dt

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from orders import claims, contracts, moves, ports, stock
from orders.models import Order, Payment, Shipment
from orders.services import facts
from orders.transitions import Also, extend, fence, held, let_go, move
from outbox import crash_points, publisher, telemetry
from outbox.resilience import Permanent, Transient

KEY_WINDOW = dt.timedelta(hours=23)
"""How long the payment provider surely remembers a key (Stripe prunes keys after 24 hours). Later a
charge whose outcome is open may be looked up, and nothing else."""


class ChargeUntraceable(Permanent):
    """A charge was asked for, the provider's key window is over, and the provider knows nothing of it."""


# validate ------------------------------------------------------------------------------------------


def validate(*, order_id: str) -> bool:
    """Check the order and reserve its stock, or reject it with the reason."""
    with fence("validate"), transaction.atomic(durable=True):
        order, lines = claims.read_to_validate(order_id)
        if order.status != moves.Status.PLACED or order.cancel_requested_at:
            return False
        problem = _problem_with(order, lines)
        if not problem:
            try:
                stock.reserve(order)
            except stock.OutOfStock as short:
                problem = f"not in stock: {', '.join(short.skus)}"
        if problem:
            _reject(order, reason=problem)
        else:
            move(order, to=moves.Status.VALIDATED)
        return True
    return False


def _problem_with(order: Order, lines: claims.Lines) -> str:
    if not lines.number:
        return "the order has no lines"
    if lines.have_other_currencies:
        return f"not all products are sold in {order.currency}"
    if lines.total_minor != order.total_minor:
        return "the total is not the sum of the lines"
    if order.total_minor <= 0:
        return "the total is zero"
    if order.total_minor > settings.LARGEST_ORDER_MINOR:
        return "the total is above the limit for an order without approval"
    return ""


# charge --------------------------------------------------------------------------------------------


def charge(*, order_id: str, gateway: ports.PaymentGateway) -> bool:
    """
    Charge the order once.

    A declined card rejects the order. An unknown outcome is looked up, now or at the next try; the
    order waits in `charge_unknown` meanwhile and no other key is ever used.
    """
    key = f"order-{order_id}-charge"
    claimed = claims.claim_to_charge(order_id, key=key)
    if claimed is None:
        return False
    order, payment, is_new = claimed
    crash_points.reached("charge.intended")
    asked_before = not is_new and payment.first_asked_at is not None
    done = None
    with fence("charge"), held(order):
        try:
            done = gateway.look_up(idempotency_key=key) if asked_before else None
            if done is None:
                if not is_new:
                    _prepare_to_ask_again(order, payment)
                done = _ask_for_charge(gateway, order, payment)
        except ports.PaymentDeclined as declined:
            done = ports.Charge(
                id="",
                amount_minor=payment.amount_minor,
                currency=payment.currency,
                succeeded=False,
                decline_code=declined.code,
                message=str(declined),
            )
        except (Transient, Permanent) as failure:
            if ports.may_have_acted(failure):
                _note_unknown(order, payment, failure)
            elif not asked_before:
                _note_without_effect(payment)
            raise
    return bool(done) and _finish_charge(order, payment, done)


def _prepare_to_ask_again(order: Order, payment: Payment) -> None:
    """
    Raises:
        orders.transitions.Fenced: if the look-up took so long that somebody else has taken the order.
        ChargeUntraceable: if an earlier call may have acted so long ago that its key is forgotten.
    """
    if payment.first_asked_at and timezone.now() - payment.first_asked_at > KEY_WINDOW:
        raise ChargeUntraceable(
            f"{payment.idempotency_key} was first asked for at {payment.first_asked_at:%Y-%m-%d %H:%M} UTC; "
            "find it at the provider by hand, then replay or discard"
        )
    with transaction.atomic(durable=True):
        extend(order)
        Payment.objects.filter(pk=payment.pk).update(
            calls=F("calls") + 1, first_asked_at=Coalesce("first_asked_at", Now()), last_asked_at=Now()
        )
    crash_points.reached("charge.asking_again")


def _ask_for_charge(gateway: ports.PaymentGateway, order: Order, payment: Payment) -> ports.Charge:
    return gateway.charge(
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        payment_method=order.payment_method,
        order_id=str(order.pk),
        idempotency_key=payment.idempotency_key,
    )


def _note_without_effect(payment: Payment) -> None:
    """The provider has certainly done nothing so far, so its memory of the key does not matter."""
    crash_points.reached("charge.without_effect")
    Payment.objects.filter(pk=payment.pk).update(first_asked_at=None, last_asked_at=None)


def _note_unknown(order: Order, payment: Payment, unknown: Exception) -> None:
    crash_points.reached("charge.unanswered")
    with fence("charge"), transaction.atomic(durable=True):
        Payment.objects.filter(pk=payment.pk, status=Payment.Status.REQUESTED).update(
            status=Payment.Status.UNKNOWN, error=str(unknown)
        )
        if order.status == moves.Status.VALIDATED:
            move(order, to=moves.Status.CHARGE_UNKNOWN, note=str(unknown))
        else:
            let_go(order)


def _finish_charge(order: Order, payment: Payment, done: ports.Charge) -> bool:
    crash_points.reached("charge.answered")
    if done.succeeded:
        with fence("charge"):
            move(order, to=moves.Status.CHARGED, also=captured(payment, done))
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


def captured(payment: Payment, done: ports.Charge) -> Also:
    """That the provider has captured the charge, to be noted with the order's move."""
    return Also(
        f"{CAPTURE} AND EXISTS (SELECT FROM moved)",
        {"payment_id": payment.pk, "provider_id": done.id},
    )


def capture(payment: Payment, done: ports.Charge) -> None:
    """Note that the provider has captured the charge."""
    with connection.cursor() as cursor:
        cursor.execute(CAPTURE, captured(payment, done).values)


CAPTURE = f"""
UPDATE {Payment._meta.db_table}
SET status = 'succeeded', provider_id = %(provider_id)s, error = '', resolved_at = statement_timestamp()
WHERE id = %(payment_id)s
"""  # noqa: S608 - our own tables


def _recover_stranded(order: Order, payment: Payment, done: ports.Charge) -> None:
    """The charge took effect but this step was fenced off: never forget money, give back what is not due."""
    with transaction.atomic(durable=True):
        now = Order.objects.select_for_update(no_key=True).get(pk=order.pk)
        if now.status in (moves.Status.REJECTED, moves.Status.CANCELLED):
            capture(payment, done)
            publisher.publish(contracts.ChargeStranded(**facts(now)))
            telemetry.emit("charge.stranded", order_id=str(order.pk))


# fulfill -------------------------------------------------------------------------------------------


def fulfill(*, order_id: str, warehouse: ports.Warehouse) -> bool:
    """Ship the order once; if the warehouse refuses, compensation begins."""
    claimed = claims.claim_to_ship(order_id, key=f"order-{order_id}-shipment")
    if claimed is None:
        return False
    order, shipment, is_new, quantities = claimed
    crash_points.reached("fulfill.intended")
    with held(order):
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
                crash_points.reached("fulfill.without_effect")
                shipment.delete()  # nothing was asked for, so there is nothing to look up
            raise
    crash_points.reached("fulfill.answered")
    return note_shipped(order, shipment, parcel)


def note_shipped(order: Order, shipment: Shipment, parcel: ports.Parcel) -> bool:
    """Note that the warehouse has shipped the order; return False if somebody else moved it on."""
    with fence("fulfill"), transaction.atomic(durable=True):
        stock.ship(order)
        move(
            order,
            to=moves.Status.FULFILLED,
            note=f"{parcel.carrier} {parcel.tracking_number}",
            also=Also(
                SHIPPED,
                {
                    "shipment_id": shipment.pk,
                    "provider_id": parcel.id,
                    "carrier": parcel.carrier,
                    "tracking_number": parcel.tracking_number,
                },
            ),
        )
        publisher.publish(
            contracts.OrderFulfilled(
                **facts(order), carrier=parcel.carrier, tracking_number=parcel.tracking_number
            )
        )
        return True
    return False


SHIPPED = f"""
UPDATE {Shipment._meta.db_table}
SET status = 'shipped', provider_id = %(provider_id)s, carrier = %(carrier)s,
    tracking_number = %(tracking_number)s, resolved_at = statement_timestamp()
WHERE id = %(shipment_id)s AND EXISTS (SELECT FROM moved)
"""  # noqa: S608 - our own tables


def _compensate(order: Order, shipment: Shipment, *, reason: str) -> bool:
    crash_points.reached("fulfill.refused")
    with fence("fulfill"), transaction.atomic(durable=True):
        Shipment.objects.filter(pk=shipment.pk).update(
            status=Shipment.Status.REFUSED, error=reason, resolved_at=Now()
        )
        message_id = publisher.publish(contracts.FulfillmentFailed(**facts(order), reason=reason))
        move(order, to=moves.Status.CANCELLING, reason=f"cannot be shipped: {reason}", message_id=message_id)
        return True
    return False


def _reject(order: Order, *, reason: str) -> None:
    move(order, to=moves.Status.REJECTED, reason=reason)
    publisher.publish(contracts.OrderRejected(**facts(order), reason=reason))
