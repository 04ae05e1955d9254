"""
Long queues of orders and of each channel: waiting messages are not duplicated, and lost ones are resumed.

Time is virtual. The relay, the broker, the subscriptions and the tasks are real; only the steps do nothing.
"""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from celery import current_app
from django.db import transaction

from notifications import tasks as notification_tasks
from orders import tasks as order_tasks
from orders.contracts import OrderFulfilled, OrderPlaced
from orders.models import Order
from outbox import publisher, redelivery, testing
from outbox.models import Delivery, OutboxMessage
from outbox.relay import deliveries, probes, relay
from outbox.verification import examination
from tests.crash.conftest import forget_everything
from tests.factories import ProductFactory, place
from tests.slow import but_first

MANY = 1_000
SWEEP = 5
"""Seconds from one sweep to the next."""

ORDERS, NOTIFICATIONS = 60, 120
"""Seconds within which a lost copy is sent again, from when it would have been consumed."""

NOBODY = {"customer_email": "", "customer_phone": "", "customer_push_token": ""}
PLACED = {"order_number": "1", "customer_name": "Ada Example", "total_minor": 250, "currency": "GBP", **NOBODY}
FULFILLED = PLACED | {"carrier": "Post", "tracking_number": "1"}
ADDRESSES = {
    "email": {"customer_email": "ada@example.com"},
    "sms": {"customer_phone": "+447700900123"},
    "push": {"customer_push_token": "token"},
}
QUEUES = {"orders": ORDERS, **dict.fromkeys(ADDRESSES, NOTIFICATIONS)}


class Line:
    """A queue with many outstanding messages; consumers take `rate` messages a second."""

    def __init__(self, queue, rate, taken):
        self.queue, self.rate, self.taken = queue, rate, taken
        self.step = {1: 10, 10: 5, 100: 1}[rate]
        """Seconds that pass at once."""

    def publish(self, number=MANY):
        if self.queue == "orders":
            events = (OrderPlaced(order_id=str(uuid.uuid4()), **PLACED) for _ in range(number))
        else:
            given = FULFILLED | ADDRESSES[self.queue]
            events = (OrderFulfilled(order_id=str(uuid.uuid4()), **given) for _ in range(number))
        with transaction.atomic():
            published = publisher.publish_many(events)
        relay.drain()
        return [str(message_id) for message_id in published]

    def consume(self, most):
        """Take so many messages, probes included; return how many there were."""
        with current_app.connection_for_read() as broker:
            queue = current_app.amqp.queues[self.queue](broker.default_channel)
            for count in range(most):
                if not (message := queue.get()):
                    return count
                testing.run(message)
        return most

    def take_away(self, positions):
        """Lose the messages at these positions of the queue; return the positions that held one."""
        with current_app.connection_for_write() as broker:
            items = broker.default_channel.client.lrange(self.queue, 0, -1)[::-1]
            for position in positions:
                broker.default_channel.client.lrem(self.queue, 1, items[position])
        return [copy for copy in positions if items[copy]]

    def pass_seconds(self, seconds):
        """Let consumers take what they can; if nothing waits, let time pass from sweep to sweep."""
        while seconds > 0:
            most = self.rate * self.step
            step = self.step if self.consume(most) == most else max(self.step, SWEEP)
            testing.pass_time(dt.timedelta(seconds=step))
            probes.sweep()
            relay.drain()
            seconds -= step


@pytest.fixture
def line(drain, monkeypatch, request):
    taken = []
    for module in (order_tasks, notification_tasks):
        for name in ("validate", "charge", "fulfill", "send_email", "send_sms", "send_push"):
            if task := getattr(module, name, None):
                monkeypatch.setattr(task, "run", lambda *, message_id, **_: taken.append(message_id))
    probes.sweep()  # queues are watched from now on
    return Line(*request.param, taken)


def lines(*rates, others="slow"):
    which = but_first((pytest.param((queue, rate)) for rate in rates for queue in QUEUES), others=others)
    return pytest.mark.parametrize(
        "line", which, indirect=True, ids=lambda which: f"{which[0]} at {which[1]}/s"
    )


def copies():
    return OutboxMessage.objects.exclude(redeliveries=0).count()


@pytest.mark.slow
@lines(100, 10, 1, others="nightly")
def test_waiting_messages_are_never_duplicated_and_lost_ones_are_resumed(line):
    published = line.publish()
    line.pass_seconds(1.15 * MANY / line.rate + 60)
    assert not copies()
    assert set(line.taken) == set(published)
    assert not Delivery.objects.exists()

    line.publish()
    line.consume(line.rate * 3)
    forget_everything()
    lost = Delivery.objects.count()
    line.pass_seconds(QUEUES[line.queue])
    assert copies() == lost
    assert not Delivery.objects.filter(generation=0).exists()


@pytest.mark.slow
@lines(1)
@pytest.mark.parametrize("at", [7, 201])
def test_a_single_lost_message_is_resumed_soon_after_its_turn(line, at):
    line.publish()
    assert line.take_away([at])
    line.pass_seconds(at / line.rate)
    assert not copies()

    line.pass_seconds(QUEUES[line.queue])
    assert copies() == 1


@lines(1)
def test_a_lost_message_of_a_growing_queue_is_resumed_soon_after_its_turn(line):
    """Twenty messages arrive per second, too few at once for a probe among them."""
    for _ in range(8):
        line.publish(20)
        line.consume(line.rate)
        testing.pass_time(dt.timedelta(seconds=1))
        probes.sweep()
        relay.drain()
    at = 40
    assert line.take_away([at])
    line.pass_seconds(at / line.rate)
    assert not copies()

    line.pass_seconds(QUEUES[line.queue])
    assert copies() == 1


@pytest.mark.slow
def test_lost_orders_are_seen_and_resumed_although_an_email_of_each_waits_for_long(drain, world):
    product = ProductFactory()
    for _ in range(50):
        place(product)
    relay.drain()
    for waiting in Delivery.objects.filter(workflow__endswith="by_email"):
        copy = deliveries.Copy(str(waiting.message_id), waiting.workflow, waiting.generation)
        assert redelivery.postpone(copy, wait=dt.timedelta(minutes=47))
    forget_everything()
    testing.pass_time(dt.timedelta(seconds=5))
    probes.sweep()
    testing.drain()
    testing.pass_time(dt.timedelta(minutes=16))
    findings = examination.run().findings
    failed = {finding.invariant.name for finding in findings if finding.verdict not in examination.PASSING}
    assert "lost-deliveries-are-resumed" in failed

    for _ in range(ORDERS):
        probes.sweep()
        testing.drain()
        testing.pass_time(dt.timedelta(seconds=1))
    assert Order.objects.filter(status="fulfilled").count() == 50
    assert Delivery.objects.filter(workflow__endswith="by_email", status="waiting").count() == 50
