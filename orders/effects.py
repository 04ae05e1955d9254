"""
Recording what providers did for an order: a captured charge, a shipped parcel.

The information comes from the step that made the call, from a cancellation, or from a lookup after a restore.
"""

from __future__ import annotations

from django.db import connection, transaction

from orders import contracts, moves, ports, stock
from orders.contracts.currencies import written
from orders.models import Order, Payment, Shipment
from orders.transitions import Also, fence, move, publishing
from outbox import endings


def charge_key(order_id: object) -> str:
    """Return the reference of the order's charge at the payment provider."""
    return f"order-{order_id}-charge"


def refund_key(order_id: object) -> str:
    """Return the reference of the refund of the order's charge at the payment provider."""
    return f"order-{order_id}-refund"


def shipment_key(order_id: object) -> str:
    """Return the reference of the order's shipment at the warehouse."""
    return f"order-{order_id}-shipment"


def check_amount(order: Order, done: ports.Charge) -> None:
    """
    Raises:
        orders.ports.ChargeDiffers: if the provider has captured an amount other than the order's.
    """
    if done.succeeded and (done.amount_minor, done.currency) != (order.total_minor, order.currency):
        was, wanted = written(done.amount_minor, done.currency), written(order.total_minor, order.currency)
        raise ports.ChargeDiffers(
            f"{done.id} has captured {was} instead of {wanted}: cancel {order.number}, which refunds it, "
            "or correct the charge at the provider and replay"
        )


def captured(payment: Payment, done: ports.Charge) -> Also:
    """The statement that records the captured charge and its amount together with the order's move."""
    return Also(
        f"{CAPTURE} AND EXISTS (SELECT FROM moved)",
        {
            "payment_id": payment.pk,
            "provider_id": done.id,
            "amount_minor": done.amount_minor,
            "currency": done.currency,
        },
    )


def capture(payment: Payment, done: ports.Charge) -> None:
    """Record the captured charge and its amount: that is what can be refunded."""
    with connection.cursor() as cursor:
        cursor.execute(CAPTURE, captured(payment, done).values)


CAPTURE = f"""
UPDATE {Payment._meta.db_table}
SET status = 'succeeded', provider_id = %(provider_id)s, error = '', resolved_at = statement_timestamp(),
    amount_minor = %(amount_minor)s, currency = %(currency)s
WHERE id = %(payment_id)s
"""  # noqa: S608 - our own tables


def note_shipped(order: Order, shipment: Shipment, parcel: ports.Parcel) -> bool:
    """Record that the warehouse has shipped the order; return False if the order has been moved meanwhile."""
    with fence("fulfill"):
        with transaction.atomic(durable=True):
            ship(order, shipment, parcel)
        endings.recorded()
        return True
    return False


def ship(order: Order, shipment: Shipment, parcel: ports.Parcel) -> None:
    """
    Record, in the caller's transaction, that the warehouse has shipped the order.

    Raises:
        orders.transitions.Fenced: if the order has been moved meanwhile.
    """
    stock.lock(order)
    fulfilled = contracts.OrderFulfilled.of(
        order, carrier=parcel.carrier, tracking_number=parcel.tracking_number
    )
    move(
        order,
        to=moves.Status.FULFILLED,
        note=f"{parcel.carrier} {parcel.tracking_number}",
        also=[
            stock.shipped(order),
            Also(
                SHIPPED,
                {
                    "shipment_id": shipment.pk,
                    "provider_id": parcel.id,
                    "carrier": parcel.carrier,
                    "tracking_number": parcel.tracking_number,
                },
            ),
            publishing(fulfilled),
            Also(*endings.statement("moved")),
        ],
    )


SHIPPED = f"""
UPDATE {Shipment._meta.db_table}
SET status = 'shipped', provider_id = %(provider_id)s, carrier = %(carrier)s,
    tracking_number = %(tracking_number)s, resolved_at = statement_timestamp()
WHERE id = %(shipment_id)s AND EXISTS (SELECT FROM moved)
"""  # noqa: S608 - our own tables
