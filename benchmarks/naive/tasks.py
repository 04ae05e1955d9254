"""The naive steps: lock the order, do the work, save. The same rows at the end as from `orders.steps`."""

from __future__ import annotations

import uuid
from typing import Any

from django.core.mail import EmailMultiAlternatives
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from benchmarks import stub
from benchmarks.naive.celery import app
from notifications import rendering
from notifications.models import Channel, Notification
from orders import moves
from orders.contracts import OrderFulfilled
from orders.models import Order, OrderLine, OrderTransition, Payment, Product, Shipment

gateway, warehouse = stub.Gateway(), stub.Warehouse()


@app.task
def validate(order_id: str) -> None:
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=order_id)
        lines = list(order.lines.order_by("product_id"))
        assert sum(line.total_minor for line in lines) == order.total_minor
        for line in lines:
            Product.objects.filter(pk=line.product_id).update(
                on_hand=F("on_hand") - line.quantity, reserved=F("reserved") + line.quantity
            )
        _move(order, Order.Status.VALIDATED)


@app.task
def charge(order_id: str) -> None:
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=order_id)
        done = gateway.charge(
            amount_minor=order.total_minor,
            currency=order.currency,
            payment_method=order.payment_method,
            order_id=str(order.pk),
            idempotency_key=str(order.pk),
        )
        Payment.objects.create(
            order=order,
            idempotency_key=f"order-{order.pk}-charge",
            amount_minor=order.total_minor,
            currency=order.currency,
            status=Payment.Status.SUCCEEDED,
            provider_id=done.id,
            resolved_at=timezone.now(),
        )
        _move(order, Order.Status.CHARGED)


@app.task
def fulfill(order_id: str) -> None:
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=order_id)
        lines = list(OrderLine.objects.filter(order=order).select_related("product").order_by("product_id"))
        parcel = warehouse.ship(
            order_id=str(order.pk),
            order_number=order.number,
            country=order.country,
            lines=[(line.product.sku, line.quantity) for line in lines],
            idempotency_key=str(order.pk),
        )
        for line in lines:
            Product.objects.filter(pk=line.product_id).update(
                reserved=F("reserved") - line.quantity, shipped=F("shipped") + line.quantity
            )
        Shipment.objects.create(
            order=order,
            idempotency_key=f"order-{order.pk}-shipment",
            status=Shipment.Status.SHIPPED,
            provider_id=parcel.id,
            carrier=parcel.carrier,
            tracking_number=parcel.tracking_number,
            resolved_at=timezone.now(),
        )
        _move(order, Order.Status.FULFILLED, due_at=None, finished_at=timezone.now())
        transaction.on_commit(lambda: notify.delay(order_id))


@app.task
def notify(order_id: str) -> None:
    order = Order.objects.select_related("shipment").get(pk=order_id)
    event = OrderFulfilled.of(
        order, carrier=order.shipment.carrier, tracking_number=order.shipment.tracking_number
    )
    text = rendering.render(event, channel=Channel.EMAIL)
    notification = Notification.objects.create(
        message_id=uuid.uuid4(),
        channel=Channel.EMAIL,
        recipient=order.customer_email,
        order_id=order.pk,
        order_number=order.number,
        template=rendering.TEMPLATES[OrderFulfilled],
        subject=text.subject,
        text=text.text,
        html=text.html,
    )
    mail = EmailMultiAlternatives(
        subject=text.subject,
        body=text.text,
        to=[order.customer_email],
        headers={"X-Order-Number": order.number},
    )
    mail.attach_alternative(text.html, "text/html")
    mail.send()
    notification.status = Notification.Status.SENT
    notification.sent_at = timezone.now()
    notification.save(update_fields=["status", "sent_at"])


@app.task(acks_late=True)
def only_call(key: str) -> None:
    """Only the provider call: the maximum for a pool with late acknowledgement."""
    stub.answer("mail", key)


def _move(order: Order, to: moves.Status, **changes: Any) -> None:
    OrderTransition.objects.create(order=order, from_status=order.status, to_status=to)
    order.status = to
    for name, value in changes.items():
        setattr(order, name, value)
    order.save(update_fields=["status", *changes])
