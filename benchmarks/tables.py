"""Empty tables and queues between rounds, and bulk rows for scenarios that need many."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import redis
from celery import Celery, current_app
from django.conf import settings
from django.db import connection
from kombu.exceptions import ChannelError

from benchmarks import ledger
from orders.contracts import OrderEvent, OrderPlaced
from orders.models import Product
from outbox.models import OutboxMessage

PRODUCTS = 100
"""Enough that orders rarely wait for each other's stock rows."""

EMPTIED = (
    "orders_order",
    "orders_product",
    "orders_apitoken",
    "orders_apiclient",
    "outbox_outboxmessage",
    "outbox_delivery",
    "outbox_queueprobe",
    "outbox_inboxentry",
    "outbox_attempt",
    "outbox_deadletter",
    "notifications_notification",
)


NEW_ID = """(
    lpad(to_hex(
        (1000 * extract(epoch FROM now() - %(days)s * interval '1 day'))::bigint - %(count)s + n), 12, '0')
    || '7' || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid"""
"""A UUIDv7, a millisecond after the one before, as SQL. So messages are in the index as real ones would be."""


def clean() -> None:
    """Empty the tables, the queues and the ledger, and add products."""
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(EMPTIED)} CASCADE")
        cursor.execute("UPDATE outbox_relaystate SET sleeping = false")
    stock = 10**9
    Product.objects.bulk_create(
        Product(sku=sku(number), name=f"Product {number}", price_minor=250, on_hand=stock, received=stock)
        for number in range(PRODUCTS)
    )
    clean_queues()
    ledger.clear()


def sku(number: int) -> str:
    """Return the SKU of a product."""
    return f"BENCH-{number % PRODUCTS}"


def clean_queues() -> None:
    """Empty all queues of both systems; no worker may run."""
    from benchmarks.naive.celery import app as naive

    if settings.BROKER_URL.startswith("redis"):
        with contextlib.closing(redis.Redis.from_url(settings.BROKER_URL)) as link:
            # The bindings of queues to exchanges stay: producers remember that they have declared them.
            if keys := [key for key in link.scan_iter(count=1000) if not key.startswith(b"_kombu.binding.")]:
                link.delete(*keys)
        return
    for app in (current_app, naive):
        with app.connection_for_write() as link:
            for queue in app.amqp.queues.values():
                bound = queue(link.default_channel)
                bound.declare()
                bound.purge()


def waiting(app: Celery, queue: str) -> int:
    """Return the number of messages in one queue; 0 also if the broker does not know it."""
    with app.connection_for_read() as link:
        bound = app.amqp.queues[queue](link.default_channel)
        unknown: tuple[type[BaseException], ...] = (ChannelError, *link.channel_errors)
        try:
            declared: Any = bound.queue_declare(passive=True)
        except unknown:
            return 0
        return int(declared.message_count)


def write_messages(
    count: int,
    *,
    of: type[OrderEvent] = OrderPlaced,
    published: bool = False,
    days_ago: int = 0,
    **fields: str,
) -> None:
    """
    Write `count` messages of orders that do not exist, in one statement; `fields` are the event's own.

    With `published`, as if they had been delivered `days_ago`.
    """
    event = of(
        order_id="",
        order_number="OF-1000000",
        customer_name="Ada Example",
        customer_email="ada@example.com",
        customer_phone="",
        customer_push_token="",
        total_minor=500,
        currency="GBP",
        **fields,
    )
    at = "now() - %(days)s * interval '1 day'"
    due = "now() - (%(count)s - made.n) * interval '1 millisecond'"  # as their ids have it
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(
            f"""
            INSERT INTO {OutboxMessage._meta.db_table}
                (id, event_name, event_version, key, payload, correlation_id, causation_id, trace, workflows,
                 redeliveries, attempts, last_error, status, not_before, published_at)
            SELECT made.id, %(name)s, %(version)s, made.id::text,
                   jsonb_set(jsonb_set(%(payload)s::jsonb, '{{order_id}}', to_jsonb(made.id::text)),
                             '{{order_number}}', to_jsonb('OF-' || made.n)),
                   made.id::text, '', '{{}}', '{{}}', 0, 0, '',
                   {f"'published', {at}, {at}" if published else f"'pending', {due}, NULL"}
            FROM (SELECT n, {NEW_ID} AS id FROM generate_series(1, %(count)s) AS n) AS made
            """,  # noqa: S608 - our own names
            {
                "name": event.name,
                "version": event.version,
                "payload": json.dumps(event.payload()),
                "count": count,
                "days": days_ago,
            },
        )
        cursor.execute("RESET statement_timeout")
