"""Connections prepare their statements; a migration must not stop workers with prepared ones."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid

import pytest
from django.conf import settings
from django.db import connection, transaction

from notifications.models import Notification
from orders import claims, moves
from orders.models import Order
from outbox import publisher
from outbox.models import OutboxMessage
from outbox.relay import relay
from tests.factories import ProductFactory, place
from tests.outbox.events import Happened

pytestmark = pytest.mark.django_db(transaction=True)

OFTEN = settings.DATABASE_PREPARE_AFTER + 3
MINUTE = dt.timedelta(minutes=1)


def prepared(table):
    """How many prepared statements of this connection use the table."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE %s", [f"%{table}%"])
        return cursor.fetchone()[0]


def claim_messages():
    with transaction.atomic():
        publisher.publish(Happened())
    return relay.claim(1)


def claim_order():
    order = place(ProductFactory(stock=1))
    return claims.claim(str(order.pk), only_from=frozenset(moves.Status), lease=MINUTE)


def claim_notification():
    texts = dict.fromkeys(("subject", "text", "html", "order_number", "template"), "x")
    return Notification.objects.write_claimed(
        lease=MINUTE, message_id=uuid.uuid4(), order_id=uuid.uuid4(), channel="sms", recipient="+441", **texts
    )


@pytest.mark.parametrize(
    ("claim", "model"),
    [(claim_messages, OutboxMessage), (claim_order, Order), (claim_notification, Notification)],
)
def test_a_column_that_a_migration_adds_disturbs_no_session(claim, model):
    table = model._meta.db_table
    for _ in range(OFTEN):
        assert claim()
    assert prepared(table), "nothing was prepared"

    with contextlib.closing(connection.copy()) as elsewhere:  # the driver would notice its own session's
        with elsewhere.cursor() as migration:
            migration.execute(f"ALTER TABLE {table} ADD COLUMN of_a_newer_version integer")
        try:
            assert claim()
        finally:
            with elsewhere.cursor() as migration:
                migration.execute(f"ALTER TABLE {table} DROP COLUMN of_a_newer_version")
    assert claim()
