"""Whole journeys, with workers that are killed, and outages of a broker, a network and a database."""

from __future__ import annotations

import contextlib
import random

import pytest
from celery import Celery, current_app

from notifications.models import Notification
from orders import services
from orders.models import Order, OrderTransition, Payment, Product, Shipment
from outbox import registry
from outbox.models import DeadLetter, Delivery, OutboxMessage, QueueProbe
from outbox.relay import probes
from outbox.verification import examination
from tests.factories import ProductFactory, place
from tests.journeys.conftest import UNACKED, UNACKED_SINCE, end_patience
from tests.processes import eventually

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

Status = Order.Status


def status(order):
    return Order.objects.values_list("status", flat=True).get(pk=order.pk)


def all_are(orders, wanted):
    ids = [order.pk for order in orders]
    return set(Order.objects.filter(pk__in=ids).values_list("status", flat=True)) == {wanted}


def captured(world):
    """What the payment provider kept, by order: how often and how much."""
    kept: dict[str, list[int]] = {}
    for intent in world.payments.ledger(kind="payment_intent"):
        if intent["status"] == "succeeded":
            kept.setdefault(intent["metadata"]["order_id"], []).append(intent["amount"])
    return kept


def is_struck(server, match):
    return any(fault["struck"] and fault["match"] == match for fault in server.faults())


@contextlib.contextmanager
def before_it_begins(worker):
    """Act on an order before the worker has processed it."""
    worker.freeze()
    try:
        yield
    finally:
        worker.thaw()


def place_with_held_charge(staff, world, *products, seconds):
    """Place an order whose charge takes long at the provider."""
    with before_it_begins(staff.orders):
        order = place(*products)
        hold(world.payments, f"order-{order.pk}-charge", seconds=seconds)
    return order


def hold(server, key, *, seconds):
    server.control(fault="slow", latency_ms=int(seconds * 1000), times=1, match=key)


def wait_for_charge(world, order):
    eventually(lambda: is_struck(world.payments, f"order-{order.pk}-charge"), "charging")


def assert_each_is_charged_once(world, *orders):
    assert captured(world) == {str(order.pk): [order.total_minor] for order in orders}
    assert list(DeadLetter.objects.values_list("consumer", "error")) == []


def test_orders_are_processed_by_real_workers_and_the_ledgers_agree(staff, world):
    product = ProductFactory()
    shipped = [place(product) for _ in range(10)]
    declined = [place(product, payment_method="pm_card_visa_chargeDeclined") for _ in range(3)]
    unshippable = ProductFactory(sku="NOSHIP-journey")
    refused = [place(unshippable) for _ in range(2)]

    eventually(lambda: all_are(shipped, Status.FULFILLED), "shipped")
    eventually(lambda: all_are(declined, Status.REJECTED), "rejected")
    eventually(lambda: all_are(refused, Status.CANCELLED), "cancelled")
    assert_each_is_charged_once(world, *shipped, *refused)
    assert world.payments.count(kind="refund") == 2
    assert world.warehouse.count(kind="shipment") == 10
    product.refresh_from_db()
    assert (product.reserved, product.shipped) == (0, 20)


def test_workers_killed_in_every_step_lose_nothing_and_do_nothing_twice(staff, world, pass_time):
    with before_it_begins(staff.orders):
        charging, shipping, refunding = place(), place(), place(ProductFactory(sku="NOSHIP-killed"))
        held = [
            (world.payments, f"order-{charging.pk}-charge"),
            (world.warehouse, f"order-{shipping.pk}-shipment"),
            (world.payments, f"order-{refunding.pk}-refund"),
        ]
        for server, key in held:
            hold(server, key, seconds=3)
    for server, key in held:
        eventually(lambda s=server, k=key: is_struck(s, k), key)
    staff.orders.kill()
    pass_time()
    staff.orders.start()

    eventually(lambda: status(charging) == status(shipping) == Status.FULFILLED, "fulfilled")
    eventually(lambda: status(refunding) == Status.CANCELLED, "refunded")
    assert_each_is_charged_once(world, charging, shipping, refunding)
    assert world.payments.count(kind="refund") == 1
    assert world.warehouse.count(kind="shipment") == 2


@pytest.mark.slow
def test_the_step_of_a_killed_child_is_finished(staff, world, pass_time):
    order = place_with_held_charge(staff, world, seconds=1)
    wait_for_charge(world, order)
    staff.orders.kill_children()
    pass_time()

    eventually(lambda: status(order) == Status.FULFILLED, "fulfilled")
    assert_each_is_charged_once(world, order)


def in_the_hands_of_a_frozen_worker(staff, broker):
    """Redis has handed the message of this order out, but the worker has read nothing of it."""

    def handed_out():
        staff.orders.freeze()
        order = place()
        eventually(lambda: not OutboxMessage.objects.undelivered().exists(), "the broker has it")
        with broker.client() as link:
            if link.llen("orders"):
                staff.orders.thaw()  # its read had ended before, so the message waits for the next read
                eventually(lambda: status(order) == Status.FULFILLED, "the worker reads again")
                return None
        return order

    return eventually(handed_out, "a message in the hands of a frozen worker")


@pytest.mark.slow
def test_a_message_that_a_dying_worker_has_just_been_given_is_not_lost(staff, world, broker):
    order = in_the_hands_of_a_frozen_worker(staff, broker)
    staff.orders.kill()
    with broker.client() as link:
        assert link.hlen(UNACKED) >= 1
        end_patience(link)
    staff.orders.start()
    staff.orders.wait_until_ready()

    eventually(lambda: status(order) == Status.FULFILLED, "fulfilled")
    assert_each_is_charged_once(world, order)


@pytest.mark.slow
def test_a_message_that_the_broker_lost_is_sent_again(staff, world, broker, pass_time):
    order = in_the_hands_of_a_frozen_worker(staff, broker)
    staff.orders.kill()
    with broker.client() as link:
        link.delete(UNACKED, UNACKED_SINCE)
    staff.orders.start()
    staff.orders.wait_until_ready()
    assert status(order) == Status.PLACED

    # A probe that was sent behind it must return before the loss is detected; then the grace period must end.
    lost = Delivery.objects.get(message_id=order.message_id, workflow__startswith="orders.")
    later = QueueProbe.objects.filter(queue="orders", sent_at__gte=lost.sent_at, returned_at__isnull=False)
    eventually(later.exists, "a probe")
    pass_time(probes.GRACE)
    eventually(lambda: all_are(Order.objects.all(), Status.FULFILLED), "fulfilled", within=10)
    assert_each_is_charged_once(world, *Order.objects.all())


@pytest.mark.slow
def test_a_connection_that_drops_during_a_charge_charges_once(staff, world, broker, pass_time):
    order = place_with_held_charge(staff, world, seconds=2)
    wait_for_charge(world, order)
    with broker.client() as link:
        link.client_kill_filter(_type="normal", skipme=True)
    eventually(lambda: staff.orders.has_logged("Connection to broker lost"), "the loss")
    pass_time()

    eventually(lambda: status(order) == Status.FULFILLED, "fulfilled")
    assert_each_is_charged_once(world, order)


@pytest.mark.slow
def test_orders_are_accepted_while_the_broker_is_down_and_processed_afterwards(staff, world, broker, pass_time):
    charging = place_with_held_charge(staff, world, seconds=2)
    wait_for_charge(world, charging)
    staff.orders.freeze()
    forgotten = [place() for _ in range(3)]
    eventually(lambda: not OutboxMessage.objects.undelivered().exists(), "the broker has them")

    broker.kill()
    staff.orders.thaw()
    during = [place() for _ in range(5)]
    eventually(lambda: "broker_down" in staff.relay.output(), "the relay has noticed")
    assert set(OutboxMessage.objects.undelivered().values_list("attempts", flat=True)) == {0}
    broker.start()  # without any messages

    eventually(lambda: all_are(during, Status.FULFILLED), "the orders of the outage")
    pass_time()
    eventually(lambda: all_are([charging, *forgotten], Status.FULFILLED), "what the broker has forgotten")
    assert_each_is_charged_once(world, charging, *forgotten, *during)


@pytest.mark.slow
def test_workers_outlive_a_database_that_goes_away(staff, world, pass_time):
    before = place()
    eventually(lambda: status(before) == Status.FULFILLED, "the first order")
    charging = place_with_held_charge(staff, world, seconds=1)
    wait_for_charge(world, charging)

    staff.database.cut()
    during = place()
    eventually(lambda: staff.orders.has_logged("step.database_down"), "a worker has noticed")
    staff.database.open()

    eventually(lambda: status(during) == Status.FULFILLED, "the order of the outage")
    pass_time()
    eventually(lambda: status(charging) == Status.FULFILLED, "the order that lost its worker's session")
    assert_each_is_charged_once(world, before, charging, during)


@pytest.mark.slow
def test_two_relays_and_two_beats_start_nothing_twice(staff, stack, world, broker):
    stack.relay(BROKER_URL=broker.url).wait_until_ready()
    stack.beat(BROKER_URL=broker.url)
    orders = [place() for _ in range(20)]

    eventually(lambda: all_are(orders, Status.FULFILLED), "fulfilled")
    assert_each_is_charged_once(world, *orders)
    assert {intent["times_seen"] for intent in world.payments.ledger(kind="payment_intent")} == {1}


@pytest.mark.slow
def test_a_customer_who_cancels_during_the_charge_gets_the_money_back(staff, world):
    product = ProductFactory(stock=2)
    order = place_with_held_charge(staff, world, product, seconds=1.5)
    wait_for_charge(world, order)
    services.request_cancellation(order_id=order.pk, requested_by="customer")

    eventually(lambda: status(order) == Status.CANCELLED, "cancelled")
    [intent] = world.payments.ledger(kind="payment_intent")
    assert intent["amount_refunded"] == intent["amount"] == order.total_minor
    assert Product.objects.values_list("on_hand", "reserved").get(pk=product.pk) == (2, 0)
    assert world.warehouse.count() == 0


@pytest.mark.slow
def test_a_worker_stopped_past_its_lease_and_continued_changes_nothing(staff, stack, world, broker, pass_time):
    order = place_with_held_charge(staff, world, seconds=1)
    wait_for_charge(world, order)
    staff.orders.freeze()
    pass_time()
    stack.worker("others", "orders", concurrency=2, BROKER_URL=broker.url, ORDERFLOW_POOL="orders")
    eventually(lambda: status(order) == Status.FULFILLED, "another worker has finished it")
    eventually(lambda: not OutboxMessage.objects.undelivered().exists(), "all is published")
    before = all_that_is_known()

    staff.orders.thaw()
    # On a slow machine its time limit is over when it goes on.
    ends = ("step.fenced", "raised unexpected: SoftTimeLimitExceeded()")
    eventually(lambda: any(map(staff.orders.has_logged, ends)), "the stopped worker has come to its end")
    assert all_that_is_known() == before
    assert_each_is_charged_once(world, order)


def all_that_is_known():
    kept = [Order, OrderTransition, Payment, Shipment, OutboxMessage]
    return {model: list(model.objects.order_by("pk").values()) for model in kept}


@pytest.mark.slow
def test_ten_deliveries_at_once_and_in_any_order_take_effect_once(staff, stack, world, broker, pass_time):
    stack.worker("others", "orders", "email", "sms", "push", concurrency=3, BROKER_URL=broker.url)
    shipped = [place(), place()]
    refused = place(ProductFactory(sku="NOSHIP-ten"))
    declined = place(payment_method="pm_card_visa_chargeDeclined")
    deliver_all_ten_times(broker)

    eventually(lambda: not Order.objects.unfinished().exists(), "all orders are final")
    eventually(lambda: not OutboxMessage.objects.undelivered().exists(), "all is published")
    deliver_all_ten_times(broker)
    with broker.client() as link:
        queues = ("orders", "email", "sms", "push", UNACKED)
        eventually(lambda: not any(link.exists(name) for name in (*queues, "unacked-others")), "all is done")

    assert (status(refused), status(declined)) == (Status.CANCELLED, Status.REJECTED)
    assert_each_is_charged_once(world, *shipped, refused)
    assert world.payments.count(kind="refund") == 1
    assert world.warehouse.count(kind="shipment") == len(shipped)
    assert world.smtp.count() == Notification.objects.count() > 0
    assert examination.run(providers=True).failed == []
    pass_time()  # for copies of e-mails that wait for the end of another lease


def in_canvas(canvas):
    return getattr(canvas, "tasks", [canvas])


def deliver_all_ten_times(broker):
    """Send every task of every message ten times, in any order."""
    tasks = []
    for row in OutboxMessage.objects.all():
        message = row.message(registry.load(row.event_name, row.event_version, row.payload))
        for name, handler in registry.workflows_for(message.event).items():
            if canvas := handler(message):
                each = [task.clone(headers=message.headers(workflow=name)) for task in in_canvas(canvas)]
                tasks += 10 * each
    random.shuffle(tasks)
    with current_app.connection_for_write(broker.url) as link, link.Producer() as producer:
        for task in tasks:
            task.apply_async(producer=producer)


@pytest.mark.slow
def test_flower_gets_events_of_every_step_of_a_chain_in_one_process(staff, world, broker):
    events: list[dict[str, object]] = []
    watcher = Celery("watcher", broker=broker.url, set_as_current=False)
    with watcher.connection() as link:
        receiver = watcher.events.Receiver(link, handlers={"*": events.append})
        with receiver.consumer_context() as (link, _, _):
            order = place(ProductFactory(stock=5))
            eventually(lambda: heard(link, events, order) == TOLD, lambda: f"all events; so far {events}")
    received = [event for event in told_of(events, order) if event["type"] == "task-received"]
    assert [event["root_id"] for event in received] == [received[0]["uuid"]] * 3
    assert [event["parent_id"] for event in received] == [None, received[0]["uuid"], received[1]["uuid"]]


TOLD = {
    (f"orders.tasks.{step}", event)
    for step in ("validate", "charge", "fulfill")
    for event in ("task-received", "task-started", "task-succeeded")
}


def heard(link, events, order):
    """The events of the order's tasks that have arrived so far."""
    with contextlib.suppress(TimeoutError):
        link.drain_events(timeout=0.1)
    names = {event["uuid"]: event["name"] for event in told_of(events, order)}
    return {(names[event["uuid"]], event["type"]) for event in events if event.get("uuid") in names}


def told_of(events, order):
    return [event for event in events if str(order.pk) in str(event.get("kwargs"))]
