"""Deciding times come from the database: a process whose clock is a day off decides the same."""

from __future__ import annotations

import datetime as dt

import pytest
from celery import current_app
from django.utils import timezone

from orders import adapters, compensation, services, steps
from orders.clients import tokens
from orders.models import Order, Payment
from outbox import redelivery, testing
from outbox.database import clock
from outbox.models import Attempt, DeadLetter, OutboxMessage
from outbox.relay import relay
from outbox.resilience import NotNow
from tests.factories import place

pytestmark = pytest.mark.usefixtures("world")

DAY = dt.timedelta(days=1)


@pytest.fixture(params=[-DAY, DAY], ids=["a day slow", "a day fast"], autouse=True)
def skew(request, monkeypatch):
    """Skew this process's clock."""
    right = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: right() + request.param)


def asked_for(order, *, ago):
    """A charge with an unknown outcome that is not found."""
    Payment.objects.create(
        order=order,
        idempotency_key=f"order-{order.pk}-charge",
        amount_minor=order.total_minor,
        currency=order.currency,
        first_asked_at=clock.now() - ago,
        last_asked_at=clock.now() - ago,
    )


def charge(order):
    return steps.charge(order_id=order.pk, gateway=adapters.payment_gateway())


def test_a_charge_requested_within_the_key_window_is_repeated(drain, world):
    order = place()
    steps.validate(order_id=order.pk)
    asked_for(order, ago=steps.KEY_WINDOW - dt.timedelta(minutes=5))

    assert charge(order)
    assert world.payments.count(kind="payment_intent") == 1


def test_a_charge_requested_before_the_key_window_is_not_repeated(drain, world):
    order = place()
    steps.validate(order_id=order.pk)
    asked_for(order, ago=steps.KEY_WINDOW + dt.timedelta(minutes=5))

    with pytest.raises(steps.ChargeUntraceable):
        charge(order)
    assert world.payments.count(kind="payment_intent") == 0


def cancel(order):
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    return compensation.cancel(
        order_id=order.pk, gateway=adapters.payment_gateway(), warehouse=adapters.warehouse()
    )


def test_a_cancellation_waits_until_a_lost_charge_can_be_found_and_no_longer(drain, world):
    young, old = place(), place()
    for order, ago in ((young, dt.timedelta(minutes=1)), (old, dt.timedelta(minutes=3))):
        steps.validate(order_id=order.pk)
        asked_for(order, ago=ago)

    with pytest.raises(NotNow) as wait:
        cancel(young)
    assert dt.timedelta(seconds=50) < wait.value.retry_after <= dt.timedelta(seconds=60)
    assert cancel(old)


def test_a_try_waits_for_its_planned_time_and_no_longer(drain, world):
    order = place()
    OutboxMessage.objects.update(status="published")
    redelivery.redeliver(
        [order.message_id], workflow="orders.workflows.fulfillment", wait=dt.timedelta(minutes=30)
    )
    drain()
    assert Order.objects.get(pk=order.pk).status == Order.Status.PLACED

    testing.pass_time(dt.timedelta(minutes=31))
    drain()
    assert Order.objects.get(pk=order.pk).status == Order.Status.FULFILLED


def deliver_again():
    """One delivery of a message that was returned."""
    relay.drain()
    with current_app.connection_for_read() as link:
        queue = current_app.amqp.queues["orders"](link.default_channel)
        testing.run(queue.get(), redelivered=True)


@pytest.mark.parametrize(
    ("ago", "is_given_up"), [(dt.timedelta(minutes=50), True), (dt.timedelta(hours=2), False)]
)
def test_losses_of_workers_count_for_an_hour(drain, ago, is_given_up):
    order = place()
    for _ in range(2):
        Attempt.objects.create(
            consumer="orders.tasks.validate",
            message_id=order.message_id,
            outcome="lost",
            error_class="LostAlone",
            failed_at=clock.now() - ago,
        )
    deliver_again()

    assert DeadLetter.objects.filter(error_class="CrashLoop").exists() is is_given_up


def test_a_token_is_valid_for_its_lifetime(drain):
    token, _ = tokens.create("a client", scopes=["orders:read"], expires_in=dt.timedelta(hours=1))

    assert abs(token.expires_at - clock.now() - dt.timedelta(hours=1)) < dt.timedelta(seconds=20)
