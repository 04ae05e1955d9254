"""After a restore, effects that only the providers know are entered and not repeated."""

from __future__ import annotations

import datetime as dt

import pytest

from notifications import channels
from notifications.channels import sms
from notifications.models import Notification
from orders import adapters, services, steps
from orders import sweep as late_orders
from orders.models import Order, OrderTransition, Payment, Refund, Shipment
from outbox import testing
from outbox.dead_letters import resolving
from outbox.models import DeadLetter, OutboxMessage, Restore
from tests.conftest import close_breakers
from tests.factories import ProductFactory, place
from tests.restore.backups import forget_keys
from tests.slow import but_first

pytestmark = pytest.mark.usefixtures("world")

EVERY_WAY = services.Contact(
    name="Ada Example", email="ada@example.com", phone="+447700900001", push_token="device-1"
)
STATUSES = ["placed", "validated", "intended", "charged"]


def carry_on(drain, rounds=3):
    """Process everything, including what a sweep resumes."""
    for _ in range(rounds):
        testing.pass_time(dt.timedelta(minutes=1))
        close_breakers()
        late_orders.resume_overdue()
        drain(redeliveries=True)


def bring_to(order, status):
    """Process an order up to a step, without a worker."""
    if status != "placed":
        steps.validate(order_id=order.pk)
    if status == "intended":
        claimed, *_ = steps.claims.claim_to_charge(str(order.pk), key=f"order-{order.pk}-charge")
        steps.let_go(claimed)
    if status == "charged":
        steps.charge(order_id=order.pk, gateway=adapters.payment_gateway())


def restore(world, backup):
    """Restore the backup, more than a day later."""
    testing.purge()
    forget_keys(world.payments, world.warehouse)
    backup.restore()


def statuses(orders):
    return set(Order.objects.filter(pk__in=[order.pk for order in orders]).values_list("status", flat=True))


def test_orders_in_flight_at_the_backup_are_not_charged_or_shipped_twice(drain, world, backup):
    product = ProductFactory()
    orders = [place(product) for _ in STATUSES]
    for order, status in zip(orders, STATUSES, strict=True):
        bring_to(order, status)
    backup.take()
    carry_on(drain)
    assert statuses(orders) == {"fulfilled"}
    restore(world, backup)
    assert "fulfilled" not in statuses(orders)
    carry_on(drain)

    assert statuses(orders) == {"fulfilled"}
    assert world.payments.count(kind="payment_intent") == world.warehouse.count(kind="shipment") == len(orders)
    parcels = {entry["id"] for entry in world.warehouse.ledger(kind="shipment")}
    assert set(Shipment.objects.values_list("provider_id", flat=True)) == parcels
    assert Restore.objects.get().evidence.startswith("the data was written elsewhere: database")


@pytest.mark.slow
def test_orders_in_flight_at_the_backup_continue_where_nothing_was_done(drain, world, backup):
    orders = [place() for _ in STATUSES]
    for order, status in zip(orders, STATUSES, strict=True):
        bring_to(order, status)
    backup.take()
    restore(world, backup)
    carry_on(drain)

    assert statuses(orders) == {"fulfilled"}
    assert world.payments.count(kind="payment_intent") == len(orders)


@pytest.mark.slow
def test_an_order_cancelled_and_refunded_after_the_backup_is_cancelled_again_and_not_shipped(
    drain, world, backup
):
    orders = [place(ProductFactory(sku=f"NOSHIP-{status}")) for status in STATUSES]
    for order, status in zip(orders, STATUSES, strict=True):
        bring_to(order, status)
    backup.take()
    carry_on(drain)
    assert statuses(orders) == {"cancelled"}
    restore(world, backup)
    carry_on(drain)

    assert statuses(orders) == {"cancelled"}
    assert world.payments.count(kind="refund") == world.payments.count(kind="payment_intent") == len(orders)
    refunds = {entry["id"] for entry in world.payments.ledger(kind="refund")}
    assert set(Refund.objects.values_list("provider_id", flat=True)) == refunds
    assert world.warehouse.count(kind="shipment") == 0


def test_a_refund_from_after_the_backup_is_looked_up_and_not_repeated(drain, world, backup):
    order = place(ProductFactory(sku="NOSHIP-refund"))
    bring_to(order, "charged")
    steps.fulfill(order_id=order.pk, warehouse=adapters.warehouse())
    assert statuses([order]) == {"cancelling"}
    backup.take()
    carry_on(drain)
    restore(world, backup)
    with world.payments.failing(fault="error", status=500, match=f"order-{order.pk}-refund"):
        carry_on(drain)

    assert statuses([order]) == {"cancelled"}
    assert world.payments.count(kind="refund") == 1


@pytest.mark.slow
def test_an_order_declined_after_the_backup_is_rejected_again_and_not_charged_again(drain, world, backup):
    order = place(payment_method="pm_card_visa_chargeDeclined")
    backup.take()
    carry_on(drain)
    restore(world, backup)
    carry_on(drain)

    assert statuses([order]) == {"rejected"}
    assert world.payments.count(kind="payment_intent") == 1


@pytest.mark.parametrize("status", but_first(STATUSES))
def test_a_cancellation_after_a_restore_finds_earlier_effects(drain, world, backup, status):
    order = place()
    bring_to(order, status)
    backup.take()
    steps.validate(order_id=order.pk)
    steps.charge(order_id=order.pk, gateway=adapters.payment_gateway())
    restore(world, backup)
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    carry_on(drain)

    assert statuses([order]) == {"cancelled"}
    assert world.payments.count(kind="refund") == world.payments.count(kind="payment_intent") == 1
    assert Payment.objects.get().status == Payment.Status.SUCCEEDED


@pytest.mark.slow
@pytest.mark.parametrize("status", but_first(STATUSES))
def test_a_cancellation_after_a_restore_finds_the_parcel_that_left_before_it(drain, world, backup, status):
    order = place()
    bring_to(order, status)
    backup.take()
    carry_on(drain)
    restore(world, backup)
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    carry_on(drain)

    assert statuses([order]) == {"fulfilled"}
    assert (world.payments.count(kind="refund"), world.warehouse.count(kind="shipment")) == (0, 1)


@pytest.mark.parametrize("is_cancelled", but_first([False, True]), ids=["goes on", "is cancelled"])
@pytest.mark.parametrize("status", but_first(["placed", "validated"]))
def test_a_charge_that_was_not_decided_on_before_a_restore_is_waited_for(
    drain, world, backup, status, is_cancelled
):
    order = place()
    bring_to(order, status)
    backup.take()
    world.payments.control(fault="state", state="processing", match=f"order-{order.pk}-charge", times=1)
    drain()
    restore(world, backup)
    if is_cancelled:
        services.request_cancellation(order_id=order.pk, requested_by="customer")
    for _ in range(2):
        testing.pass_time(dt.timedelta(minutes=20))
        drain()
    assert not statuses([order]) & {"fulfilled", "cancelled"}

    [intent] = world.payments.ledger(kind="payment_intent")
    captured = {"status": "succeeded", "amount_received": order.total_minor}
    world.payments.change("payment_intent", intent["id"], **captured)
    carry_on(drain)
    assert statuses([order]) == {"cancelled" if is_cancelled else "fulfilled"}
    assert world.payments.count(kind="payment_intent") == 1
    assert world.payments.count(kind="refund") == is_cancelled


@pytest.mark.slow
def test_no_call_is_made_while_a_provider_cannot_be_queried(drain, world, backup):
    order = place()
    backup.take()
    carry_on(drain)
    restore(world, backup)
    with world.payments.failing(fault="error", status=500, match="/search"):
        for _ in range(3):
            testing.pass_time(dt.timedelta(minutes=10))
            close_breakers()
            drain()
        assert world.payments.count(kind="payment_intent") == 1
        assert "fulfilled" not in statuses([order])

    testing.pass_time(dt.timedelta(hours=1))
    carry_on(drain)
    assert statuses([order]) == {"fulfilled"}
    assert world.payments.count(kind="payment_intent") == 1


def test_without_any_sign_of_a_restore_an_order_older_than_the_keys_is_looked_up_first(drain, world):
    """Its rows are lost without a detectable restore: deleted by hand, or by a lagging standby."""
    order = place()
    drain()
    forget_keys(world.payments, world.warehouse)
    turn_back(order)
    age(order, dt.timedelta(days=1))
    carry_on(drain)

    assert statuses([order]) == {"fulfilled"}
    assert world.payments.count(kind="payment_intent") == world.warehouse.count(kind="shipment") == 1


@pytest.mark.slow
def test_customers_get_no_sms_twice_and_a_person_decides_about_the_rest(drain, world, backup):
    order = place(contact=EVERY_WAY)
    backup.take()
    carry_on(drain)
    counts = [world.smtp.count(), world.sms.count(), world.push.count()]
    assert counts == [2, 2, 2]
    restore(world, backup)
    carry_on(drain)

    assert statuses([order]) == {"fulfilled"}
    assert [world.smtp.count(), world.sms.count(), world.push.count()] == counts
    sent = {entry["sid"] for entry in world.sms.ledger()}
    assert set(Notification.objects.filter(channel="sms").values_list("provider_message_id", flat=True)) == sent
    held = DeadLetter.objects.unresolved()
    assert {(dead_letter.consumer, dead_letter.error_class) for dead_letter in held} == {
        ("notifications.tasks.send_email", "HeldAfterRestore"),
        ("notifications.tasks.send_push", "HeldAfterRestore"),
    }

    resolving.replay(held, by="on call", reason="better twice than never")
    carry_on(drain)
    assert (world.sms.count(), world.push.count()) == (2, 4)
    assert set(Notification.objects.values_list("status", flat=True)) == {"sent"}


@pytest.mark.slow
def test_an_sms_is_found_behind_all_that_its_recipient_was_sent_after_it(drain, world, backup, monkeypatch):
    monkeypatch.setattr(sms, "RECIPIENTS_PAGE", 2)
    order = place(contact=services.Contact(name="Ada Example", phone=EVERY_WAY.phone))
    backup.take()
    carry_on(drain)
    sent = [entry["sid"] for entry in world.sms.ledger()]
    for number in range(5):
        channels.get("sms").send(Notification(recipient=EVERY_WAY.phone, text=f"Reminder {number}"))
    restore(world, backup)
    carry_on(drain)

    assert statuses([order]) == {"fulfilled"}
    assert world.sms.count() == len(sent) + 5
    assert sorted(Notification.objects.values_list("provider_message_id", flat=True)) == sorted(sent)


@pytest.mark.slow
def test_settings_can_allow_sending_again_what_cannot_be_looked_up(drain, world, backup, settings):
    settings.NOTIFICATIONS_AFTER_RESTORE = "send"
    place(contact=EVERY_WAY)
    backup.take()
    carry_on(drain)
    restore(world, backup)
    carry_on(drain)

    assert (world.sms.count(), world.push.count()) == (2, 4)
    assert set(Notification.objects.values_list("status", flat=True)) == {"sent"}
    assert not DeadLetter.objects.exists()


def test_orders_placed_after_a_restore_are_notified_as_usual(drain, world, backup):
    backup.take()
    restore(world, backup)
    place(contact=EVERY_WAY)
    drain()

    assert [world.smtp.count(), world.sms.count(), world.push.count()] == [2, 2, 2]


@pytest.mark.slow
def test_a_push_after_a_restore_replaces_no_other_push_of_the_same_device(drain, world, backup):
    backup.take()
    place(contact=EVERY_WAY)
    drain()
    restore(world, backup)
    place(contact=EVERY_WAY)
    drain()

    keys = [entry["data"]["collapse_key"] for entry in world.push.ledger()]
    assert len(set(keys)) == len(keys) == 4


def test_numbers_never_repeat(drain, world, backup):
    before = place()
    backup.take()
    forgotten = {place().number for _ in range(3)}
    restore(world, backup)
    after = [place() for _ in range(3)]

    assert not forgotten & {order.number for order in after}
    assert {order.number for order in after}.isdisjoint({before.number})
    assert 0 < number_of(after[0]) - number_of(before) < 1_000_000


def number_of(order):
    return int(order.number.removeprefix("OF-"))


def turn_back(order):
    """Delete everything that happened to an order since it was placed, except its first message."""
    for model in (Refund, Payment, Shipment):
        model.objects.all().delete()
    OutboxMessage.objects.exclude(pk=order.message_id).delete()
    _past(order, "DELETE FROM orders_ordertransition WHERE order_id = %s AND from_status <> ''")
    _past(
        order,
        "UPDATE orders_order SET status = 'placed', due_at = now(), finished_at = NULL, message_id = "
        f"'{order.message_id}' WHERE id = %s",
    )
    _past(
        order,
        "UPDATE orders_product SET on_hand = on_hand + shipped, shipped = 0 WHERE id IN "
        "(SELECT product_id FROM orders_orderline WHERE order_id = %s)",
    )


def age(order, span):
    """Change the time at which an order was placed."""
    _past(
        order,
        f"UPDATE orders_ordertransition SET at = at - interval '{span.total_seconds()} s' WHERE order_id = %s",
    )
    assert OrderTransition.objects.filter(order=order).exists()


def _past(order, statement):
    """Change a row that the database protects."""
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        for table in ("orders_order", "orders_ordertransition"):
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(statement, [order.pk])
        for table in ("orders_order", "orders_ordertransition"):
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
