"""
Writing down what the outside did for an order: a captured charge, a parcel that left.

Whatever found it out: the step that asked, a cancellation that looked it up, or a look after a restore.
"""

from __future__ import annotations

from django.db import connection, transaction

from orders import contracts, moves, ports, stock
from orders.contracts.currencies import written
from orders.models import Order, Payment, Shipment
from orders.transitions import Also, fence, move
from outbox import publisher


def charge_key(order_id: object) -> str:
    """The reference under which the payment provider knows the order's charge."""
    return f"order-{order_id}-charge"


def refund_key(order_id: object) -> str:
    """The reference under which the payment provider knows the refund of the order's charge."""
    return f"order-{order_id}-refund"


def shipment_key(order_id: object) -> str:
    """The reference under which the warehouse knows the order's shipment."""
    return f"order-{order_id}-shipment"


def check_amount(order: Order, done: ports.Charge) -> None:
    """
    Raises:
        orders.ports.ChargeDiffers: if the provider has captured another amount than the order's.
    """
    if done.succeeded and (done.amount_minor, done.currency) != (order.total_minor, order.currency):
        was, wanted = written(done.amount_minor, done.currency), written(order.total_minor, order.currency)
        raise ports.ChargeDiffers(
            f"{done.id} has captured {was} in place of {wanted}: cancel {order.number}, which gives it back, "
            "or correct the charge at the provider and replay"
        )


def captured(payment: Payment, done: ports.Charge) -> Also:
    """That the provider has captured the charge, and how much, to be noted with the order's move."""
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
    """Note that the provider has captured the charge, and how much: that is what can be given back."""
    with connection.cursor() as cursor:
        cursor.execute(CAPTURE, captured(payment, done).values)


CAPTURE = f"""
UPDATE {Payment._meta.db_table}
SET status = 'succeeded', provider_id = %(provider_id)s, error = '', resolved_at = statement_timestamp(),
    amount_minor = %(amount_minor)s, currency = %(currency)s
WHERE id = %(payment_id)s
"""  # noqa: S608 - our own tables


def note_shipped(order: Order, shipment: Shipment, parcel: ports.Parcel) -> bool:
    """Note that the warehouse has shipped the order; return False if somebody else moved it on."""
    with fence("fulfill"), transaction.atomic(durable=True):
        ship(order, shipment, parcel)
        return True
    return False


def ship(order: Order, shipment: Shipment, parcel: ports.Parcel) -> None:
    """
    Note, in the caller's transaction, that the warehouse has shipped the order.

    Raises:
        orders.transitions.Fenced: if somebody else moved it on.
    """
    stock.lock(order)
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
        ],
    )
    publisher.publish(
        contracts.OrderFulfilled.of(order, carrier=parcel.carrier, tracking_number=parcel.tracking_number)
    )


SHIPPED = f"""
UPDATE {Shipment._meta.db_table}
SET status = 'shipped', provider_id = %(provider_id)s, carrier = %(carrier)s,
    tracking_number = %(tracking_number)s, resolved_at = statement_timestamp()
WHERE id = %(shipment_id)s AND EXISTS (SELECT FROM moved)
"""  # noqa: S608 - our own tables
