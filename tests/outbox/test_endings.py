"""Deliveries that end in the statement of their workflow's last effect."""

from __future__ import annotations

import uuid

import pytest
from django.db import connection

from orders.models import Order
from outbox import crash_points, endings, redelivery
from outbox.models import Delivery, OutboxMessage
from outbox.relay.deliveries import Copy
from tests.factories import ProductFactory, place


@pytest.fixture
def copy(transactional_db):
    delivery = Delivery.objects.create(
        message_id=uuid.uuid4(), workflow="of.a.test", generation=0, status=Delivery.Status.SENT
    )
    return Copy(str(delivery.message_id), delivery.workflow, delivery.generation)


def end_if(is_done):
    """A statement with an effect or without one."""
    end, values = endings.statement("effect")
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH effect AS (SELECT 1 WHERE %(is_done)s), ended AS ({end}) SELECT FROM effect",
            values | {"is_done": is_done},
        )


@pytest.mark.parametrize("is_done", [True, False])
def test_a_delivery_ends_with_an_effect_only(copy, is_done):
    with endings.of(copy):
        end_if(is_done)

    assert Delivery.objects.exists() is not is_done


def test_a_task_that_is_not_the_last_one_ends_no_delivery(copy):
    with endings.of(None):
        end_if(True)
    end_if(True)

    assert Delivery.objects.exists()


def test_a_copy_of_an_older_generation_ends_no_delivery(copy):
    Delivery.objects.update(generation=1)

    with endings.of(copy):
        end_if(True)

    assert Delivery.objects.exists()


@pytest.mark.usefixtures("world")
def test_an_order_and_its_notifications_end_their_deliveries_without_a_statement_of_their_own(drain):
    statements = []

    def record(execute, sql, params, many, context):
        statements.append(sql.split()[0:3])
        return execute(sql, params, many, context)

    order = place(ProductFactory(stock=10))
    with connection.execute_wrapper(record):
        drain()

    assert Order.objects.get(pk=order.pk).status == "fulfilled"
    assert not list(Delivery.objects.values("workflow", "status", "generation", "queue"))
    assert ["DELETE", "FROM", Delivery._meta.db_table] not in statements


@pytest.mark.usefixtures("world")
def test_the_delivery_of_a_redelivered_message_lasts_until_its_success_is_recorded(drain):
    place(ProductFactory(stock=10))
    redelivery.redeliver(list(OutboxMessage.objects.values_list("pk", flat=True)))
    lasting = []

    def look(point):
        if point == "step.redone":
            lasting.append(Delivery.objects.filter(generation=1).exists())

    crash_points.arm(look)
    try:
        drain()
    finally:
        crash_points.disarm()

    assert lasting
    assert all(lasting)
    assert not list(Delivery.objects.values("workflow", "status", "generation", "queue"))
