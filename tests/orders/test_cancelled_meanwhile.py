"""A cancellation that is requested while a step is running, and whose message the broker then loses."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib
import threading

import pytest
from django.db import connection

from orders import adapters, claims, moves, services, steps, transitions
from orders import sweep as late_orders
from orders.models import Order, Payment, Shipment
from outbox import crash_points, testing
from outbox.relay import probes, relay
from outbox.resilience import Outage, Transient
from tests.conftest import close_breakers
from tests.factories import ProductFactory, place

pytestmark = pytest.mark.usefixtures("world")

POINTS = [
    "charge.intended",
    "charge.answered",
    "charge.unanswered",
    "fulfill.intended",
    "fulfill.answered",
    "fulfill.refused",
]
MIGRATION = "orders.migrations.0006_cancellations_name_their_message"
SHIPPED_ALL_THE_SAME = {"fulfill.intended", "fulfill.answered"}


def lose_everything():
    """Let the broker accept what is due, and lose all its messages."""
    relay.drain()
    testing.purge()


def let_sweeps_run(drain, minutes=3):
    for _ in range(minutes):
        testing.pass_time(dt.timedelta(minutes=1))
        close_breakers()
        late_orders.resume_overdue()
        probes.sweep()
        drain()


@pytest.fixture
def at_point():
    """Call something once, when the work reaches a crash point."""

    def arm(name, act):
        def once(reached):
            if reached == name:
                crash_points.disarm()
                act()

        crash_points.arm(once)

    yield arm
    crash_points.disarm()


@pytest.mark.parametrize("point", POINTS)
def test_a_cancellation_requested_during_a_step_is_carried_out_although_the_broker_lost_it(
    drain, world, at_point, point
):
    refused = point == "fulfill.refused"
    order = place(ProductFactory(sku="NOSHIP-one") if refused else None)
    lose_everything()
    steps.validate(order_id=order.pk)
    if point.startswith("fulfill"):
        steps.charge(order_id=order.pk, gateway=adapters.payment_gateway())
    if point == "charge.unanswered":
        world.payments.control(fault="drop_after", times=1, match=f"order-{order.pk}-charge")
    at_point(point, lambda: services.request_cancellation(order_id=order.pk, requested_by="customer"))
    with _failures_end_here():
        if point.startswith("charge"):
            steps.charge(order_id=order.pk, gateway=adapters.payment_gateway())
        else:
            steps.fulfill(order_id=order.pk, warehouse=adapters.warehouse())
    lose_everything()
    let_sweeps_run(drain)

    order.refresh_from_db()
    ends = moves.Status.FULFILLED if point in SHIPPED_ALL_THE_SAME else moves.Status.CANCELLED
    assert order.status == ends
    charged = world.payments.count(kind="payment_intent")
    assert world.payments.count(kind="refund") == (0 if ends == moves.Status.FULFILLED else charged)


def test_a_cancellation_requested_during_validation_is_carried_out_although_the_broker_lost_it(
    drain, monkeypatch
):
    order = place()
    lose_everything()
    move = transitions.move

    def cancel_and_move(claimed, **to):
        _elsewhere(lambda: services.request_cancellation(order_id=order.pk, requested_by="customer"))
        move(claimed, **to)

    monkeypatch.setattr(steps, "move", cancel_and_move)
    steps.validate(order_id=order.pk)
    monkeypatch.undo()
    lose_everything()
    let_sweeps_run(drain)

    order.refresh_from_db()
    assert order.status == moves.Status.CANCELLED


def test_a_step_never_gives_an_order_an_older_message(drain, at_point):
    order = place()
    steps.validate(order_id=order.pk)
    at_point(
        "charge.answered", lambda: services.request_cancellation(order_id=order.pk, requested_by="customer")
    )
    steps.charge(order_id=order.pk, gateway=adapters.payment_gateway())

    charged = Order.objects.get(pk=order.pk)
    assert charged.status == moves.Status.CHARGED
    assert charged.message_id != order.message_id


def test_orders_that_named_their_older_message_again_are_given_that_of_their_cancellation(drain):
    """The rows as earlier versions left them."""
    order = place()
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    lose_everything()
    Order.objects.filter(pk=order.pk).update(message_id=order.message_id)
    with connection.cursor() as cursor:
        cursor.execute(importlib.import_module(MIGRATION).NAME)
    let_sweeps_run(drain)

    order.refresh_from_db()
    assert order.status == moves.Status.CANCELLED


def test_a_late_failure_discards_no_shipment_of_another_worker(drain):
    """
    The first worker's call certainly did nothing; by then a second one has claimed the order, and ships it.
    """
    order = place()
    steps.validate(order_id=order.pk)
    steps.charge(order_id=order.pk, gateway=adapters.payment_gateway())
    warehouse = adapters.warehouse()

    class Late:
        def ship(self, **_):
            testing.pass_time(dt.timedelta(minutes=1))
            steps.fulfill(order_id=order.pk, warehouse=warehouse)
            raise Outage("the warehouse does not answer")

    with _failures_end_here():
        steps.fulfill(order_id=order.pk, warehouse=Late())

    assert Order.objects.get(pk=order.pk).status == moves.Status.FULFILLED
    assert Shipment.objects.get(order=order).status == Shipment.Status.SHIPPED


def test_a_late_failure_discards_no_shipment_that_another_worker_requests(drain):
    order = place()
    steps.validate(order_id=order.pk)
    steps.charge(order_id=order.pk, gateway=adapters.payment_gateway())

    class Late:
        def ship(self, **_):
            testing.pass_time(dt.timedelta(minutes=1))
            assert claims.claim_to_ship(str(order.pk), key=f"order-{order.pk}-shipment")
            raise Outage("the warehouse does not answer")

    with _failures_end_here():
        steps.fulfill(order_id=order.pk, warehouse=Late())

    assert Shipment.objects.filter(order=order).exists()


def test_a_late_failure_discards_no_charge_of_another_worker(drain):
    """If it were discarded, the call would be repeated once the provider has dropped its key."""
    order = place()
    steps.validate(order_id=order.pk)

    class Lost:
        def look_up(self, **_):
            return None

        def charge(self, **_):
            raise TimeoutError("the answer is lost")

    class First(Lost):
        def charge(self, **_):
            testing.pass_time(dt.timedelta(minutes=1))
            with _failures_end_here():
                steps.charge(order_id=order.pk, gateway=Lost())
            raise Outage("the provider does not answer")

    with _failures_end_here():
        steps.charge(order_id=order.pk, gateway=First())

    assert Payment.objects.get().first_asked_at is not None


def _failures_end_here():
    """The place where a worker's task would handle the failure of a call."""
    return contextlib.suppress(Transient, TimeoutError)


def _elsewhere(act):
    """Do something in a separate session, to its end."""

    def run():
        try:
            act()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=10)
    assert not thread.is_alive()
