"""Placing an order in the naive way, and without any following work."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any

from celery import chain
from django.db import connection, transaction
from django.utils import timezone

from orders.models import Order, OrderLine, OrderTransition, Product

FAR_OFF = dt.timedelta(days=365)
"""A constraint of the table requires that unfinished orders are due; nothing reads it here."""


def place_order(*, skus: Sequence[str], email: str, name: str = "") -> tuple[Order, list[OrderLine]]:
    """Write the order and its lines; after the commit, send the chain of steps if the process still runs."""
    from benchmarks.naive import tasks

    with transaction.atomic():
        order, lines = write_order(skus=skus, email=email, name=name)
        key = str(order.pk)
        transaction.on_commit(
            lambda: chain(tasks.validate.si(key), tasks.charge.si(key), tasks.fulfill.si(key)).delay()
        )
    return order, lines


def place_order_only(*, skus: Sequence[str], email: str, name: str = "") -> tuple[Order, list[OrderLine]]:
    """Write the order and its lines in one transaction, and nothing else."""
    with transaction.atomic():
        return write_order(skus=skus, email=email, name=name)


def write_order(*, skus: Sequence[str], email: str, name: str, **more: Any) -> tuple[Order, list[OrderLine]]:
    """Write the order, its lines and the first entry of its history, in the caller's transaction."""
    products = list(Product.objects.filter(sku__in=skus))
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('orders_number')")
        number = f"OF-{cursor.fetchone()[0]}"
    order = Order.objects.create(
        number=number,
        customer_name=name,
        customer_email=email,
        country="GB",
        payment_method="pm_card_visa",
        currency="GBP",
        total_minor=sum(product.price_minor for product in products),
        message_id=uuid.uuid4(),
        placed_at=timezone.now(),
        due_at=timezone.now() + FAR_OFF,
        **more,
    )
    lines = OrderLine.objects.bulk_create(
        OrderLine(order=order, product=product, quantity=1, unit_price_minor=product.price_minor)
        for product in products
    )
    OrderTransition.objects.create(order=order, to_status=Order.Status.PLACED)
    return order, lines
