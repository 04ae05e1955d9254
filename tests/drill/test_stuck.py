"""What counts as stuck at the end of a drill, against a real database; each test breaks one thing."""

import datetime as dt

import pytest
from django.db.models.functions import Now

from notifications.models import Notification
from orderflow.chaos.assessment import stuck
from outbox import testing
from outbox.models import DeadLetter, Delivery, OutboxMessage
from outbox.relay import relay
from tests.factories import place

LATER = dt.timedelta(minutes=5)


@pytest.fixture
def order(world, drain):
    """An order in progress: the broker has lost all its messages."""
    order = place()
    relay.drain()
    testing.purge()
    return order


def details(order):
    return [finding.detail for finding in stuck.find([str(order.pk)])]


def waits(**condition):
    Delivery.objects.filter(**condition).update(status="waiting", not_before=Now() + LATER)


def test_a_finished_order_is_not_stuck(world, drain):
    order = place()
    drain()
    assert details(order) == []


def test_work_that_a_broker_has_lost_is_stuck(order):
    found = details(order)
    assert any("the order is placed, and nothing is planned" in detail for detail in found)
    assert sum("the delivery of" in detail for detail in found) == Delivery.objects.count() > 1


def test_work_with_a_planned_time_is_not_stuck(order):
    waits()
    assert details(order) == []


def test_work_whose_planned_time_has_passed_is_stuck(order):
    Delivery.objects.update(status="waiting", not_before=Now() - LATER)
    assert sum("is waiting since" in detail for detail in details(order)) == Delivery.objects.count()


def test_work_in_an_open_dead_letter_is_not_stuck_and_other_work_is(order):
    waits(workflow__startswith="notifications.")
    Delivery.objects.filter(workflow__startswith="orders.").delete()
    assert details(order) == ["the order is placed, and nothing is planned"]
    message = OutboxMessage.objects.first()
    DeadLetter.objects.create(
        source="task", consumer="orders.tasks.charge", key=str(order.pk), message_id=message.pk, error_class="X"
    )
    assert details(order) == []


@pytest.mark.parametrize("status", ["pending", "parked"])
def test_a_message_without_a_delivery_is_stuck(order, status):
    waits()
    OutboxMessage.objects.update(status=status, not_before=Now() - LATER)
    assert len(details(order)) == OutboxMessage.objects.filter(key=str(order.pk)).count() > 0


def test_a_notification_without_a_planned_send_is_stuck(world, drain):
    order = place()
    drain()
    Notification.objects.filter(pk=Notification.objects.first().pk).update(status="sending", sent_at=None)
    [found] = details(order)
    assert "is sending, and nothing is planned" in found


def test_an_order_without_a_message_is_stuck(order):
    Delivery.objects.all().delete()
    assert details(order) == ["the order is placed, and nothing is planned"]
