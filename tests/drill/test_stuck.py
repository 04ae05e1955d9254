"""What counts as stuck when a drill has settled, against a real database; each time one thing is broken."""

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
    """An order that is under way: the broker has lost all that was started for it."""
    order = place()
    relay.drain()
    testing.purge()
    return order


def details(order):
    return [finding.detail for finding in stuck.find([str(order.pk)])]


def waits(**condition):
    Delivery.objects.filter(**condition).update(status="waiting", not_before=Now() + LATER)


def test_an_order_that_has_come_to_its_end_is_not_stuck(world, drain):
    order = place()
    drain()
    assert details(order) == []


def test_what_a_broker_has_lost_is_stuck(order):
    told = details(order)
    assert any("the order is placed, and nothing is planned" in detail for detail in told)
    assert sum("the delivery of" in detail for detail in told) == Delivery.objects.count() > 1


def test_what_waits_for_a_planned_time_is_not_stuck(order):
    waits()
    assert details(order) == []


def test_a_wait_that_is_over_is_stuck(order):
    Delivery.objects.update(status="waiting", not_before=Now() - LATER)
    assert sum("is waiting since" in detail for detail in details(order)) == Delivery.objects.count()


def test_what_lies_in_an_open_dead_letter_is_not_stuck_and_the_others_are(order):
    waits(workflow__startswith="notifications.")
    Delivery.objects.filter(workflow__startswith="orders.").delete()
    assert details(order) == ["the order is placed, and nothing is planned"]
    message = OutboxMessage.objects.first()
    DeadLetter.objects.create(
        source="task", consumer="orders.tasks.charge", key=str(order.pk), message_id=message.pk, error_class="X"
    )
    assert details(order) == []


@pytest.mark.parametrize("status", ["pending", "parked"])
def test_a_message_that_nobody_delivers_is_stuck(order, status):
    waits()
    OutboxMessage.objects.update(status=status, not_before=Now() - LATER)
    assert len(details(order)) == OutboxMessage.objects.filter(key=str(order.pk)).count() > 0


def test_a_notification_that_nothing_will_send_is_stuck(world, drain):
    order = place()
    drain()
    Notification.objects.filter(pk=Notification.objects.first().pk).update(status="sending", sent_at=None)
    [told] = details(order)
    assert "is sending, and nothing is planned" in told


def test_an_order_that_no_message_moves_is_stuck(order):
    Delivery.objects.all().delete()
    assert details(order) == ["the order is placed, and nothing is planned"]
