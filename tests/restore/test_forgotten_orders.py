"""Orders placed after the backup, of which only the providers know: `verify --after-restore` finds them."""

from __future__ import annotations

import datetime as dt
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from orders import adapters, services, steps
from orders.models import Order, Payment, Product, Refund
from outbox.database import clock
from outbox.models import RepairRecord, Restore
from outbox.verification import examination
from tests.factories import ProductFactory, place
from tests.restore.backups import forget_keys
from tests.restore.test_catching_up import carry_on, restore

pytestmark = pytest.mark.usefixtures("world")

THEIRS = {f"their-{records}-are-in-our-books" for records in ("charges", "shipments", "refunds")}


def verify(*options):
    """Run the command; return its exit code and its output."""
    output = StringIO()
    try:
        call_command("verify", *options, stdout=output)
    except CommandError as failed:
        return failed.returncode, f"{output.getvalue()}{failed}"
    return 0, output.getvalue()


def repair(data_until):
    """Enter what can be entered; return the exit code and the output of the command."""
    at = data_until.isoformat()
    return verify("--after-restore", at, "--repair", "--apply", "--reason", "restored", "--format", "json")


def charge(order):
    steps.validate(order_id=order.pk)
    steps.charge(order_id=order.pk, gateway=adapters.payment_gateway())


@pytest.fixture
def product(drain):
    return ProductFactory(stock=100)


def test_a_forgotten_order_that_was_shipped_is_entered_with_its_charge_and_its_parcel(
    drain, world, backup, product
):
    backup.take()
    data_until = clock.now()
    forgotten = place(product, quantity=3)
    carry_on(drain)
    restore(world, backup)
    code, output = verify("--after-restore", data_until.isoformat(), "--format", "json")
    assert code == 1
    assert str(forgotten.pk) in output

    repair(data_until)
    carry_on(drain)
    entered = Order.objects.get(pk=forgotten.pk)
    assert (entered.number, entered.status, entered.total_minor) == (
        forgotten.number,
        Order.Status.FULFILLED,
        forgotten.total_minor,
    )
    assert (world.payments.count(kind="payment_intent"), world.warehouse.count(kind="shipment")) == (1, 1)
    assert Product.objects.get().shipped == 3
    assert RepairRecord.objects.exists()
    assert verify("--after-restore", data_until.isoformat())[0] == 0


@pytest.mark.slow
def test_a_forgotten_order_that_was_charged_only_is_entered_and_refunded(drain, world, backup, product):
    backup.take()
    data_until = clock.now()
    forgotten = place(product)
    charge(forgotten)
    restore(world, backup)
    repair(data_until)
    carry_on(drain)

    assert Order.objects.get(pk=forgotten.pk).status == Order.Status.CANCELLED
    assert Refund.objects.get().status == Refund.Status.SUCCEEDED
    assert (world.payments.count(kind="payment_intent"), world.payments.count(kind="refund")) == (1, 1)
    assert verify("--after-restore", data_until.isoformat())[0] == 0


@pytest.mark.slow
def test_a_forgotten_order_that_was_refunded_is_refunded_once(drain, world, backup):
    product = ProductFactory(sku="NOSHIP-this")
    backup.take()
    data_until = clock.now()
    forgotten = place(product)
    carry_on(drain)
    assert world.payments.count(kind="refund") == 1
    restore(world, backup)
    repair(data_until)
    carry_on(drain)

    assert Order.objects.get(pk=forgotten.pk).status == Order.Status.CANCELLED
    assert world.payments.count(kind="refund") == 1
    assert verify("--after-restore", data_until.isoformat())[0] == 0


@pytest.mark.slow
def test_a_charge_of_an_order_that_ended_unshipped_in_the_restored_data_is_entered_and_refunded(
    drain, world, backup, product
):
    """For example, because its cancellation was finished before the charge was looked up."""
    order = place(product)
    backup.take()
    data_until = clock.now()
    charge(order)
    restore(world, backup)
    ended_at = clock.now() - dt.timedelta(minutes=10)
    Order.objects.filter(pk=order.pk).update(status="cancelled", due_at=None, finished_at=ended_at)
    repair(data_until)
    carry_on(drain)

    assert Payment.objects.get(order_id=order.pk).status == Payment.Status.SUCCEEDED
    assert world.payments.count(kind="refund") == 1


def test_inconsistent_records_are_left_to_a_person_and_stay_visible(drain, world, backup, product):
    """The price has changed, so it is unknown what each of two products cost."""
    other = ProductFactory(stock=100)
    items = [services.Item(sku=product.sku, quantity=1), services.Item(sku=other.sku, quantity=1)]
    backup.take()
    data_until = clock.now()
    forgotten = place(items=items)
    carry_on(drain)
    restore(world, backup)
    Product.objects.filter(pk=other.pk).update(price_minor=999)
    code, output = repair(data_until)

    assert code == 1
    assert str(forgotten.pk) in output
    assert not Order.objects.exists()


@pytest.mark.slow
def test_a_request_that_is_repeated_after_a_restore_places_an_order_and_the_forgotten_one_is_refunded(
    drain, world, backup, product
):
    key = services.IdempotencyKey.of(scope="client", key="mine", request={})
    backup.take()
    data_until = clock.now()
    forgotten = place(product, idempotency=key)
    charge(forgotten)
    restore(world, backup)
    repeated = place(product, idempotency=key)
    carry_on(drain)
    repair(data_until)
    carry_on(drain)

    assert (Order.objects.get(pk=repeated.pk).status, Order.objects.get(pk=forgotten.pk).status) == (
        Order.Status.FULFILLED,
        Order.Status.CANCELLED,
    )
    assert world.payments.count(kind="payment_intent") - world.payments.count(kind="refund") == 1
    assert repeated.number != forgotten.number


@pytest.mark.slow
def test_a_declared_restore_has_the_same_effect_as_a_detected_one(drain, world, backup, product, monkeypatch):
    """The files were restored in place, and the witness was lost as well."""
    order = place(product, contact=services.Contact(phone="+447700900001"))
    last = order.number
    backup.take()
    data_until = clock.now()
    carry_on(drain)
    restore(world, backup)
    Restore.objects.all().delete()
    verify("--after-restore", data_until.isoformat())
    forget_keys(world.payments, world.warehouse)
    carry_on(drain)

    assert Restore.objects.get().data_until == data_until
    assert Order.objects.get().status == Order.Status.FULFILLED
    assert (world.payments.count(kind="payment_intent"), world.warehouse.count(kind="shipment")) == (1, 1)
    assert world.sms.count() == 2
    assert int(place(product).number.removeprefix("OF-")) >= int(last.removeprefix("OF-")) + 10_000


def test_declaring_a_restore_again_changes_nothing(drain, world, product):
    data_until = clock.now() - dt.timedelta(minutes=5)
    for _ in range(3):
        verify("--after-restore", data_until.isoformat())

    assert Restore.objects.count() == 1


@pytest.mark.parametrize("options", [["--since", "2h"], []], ids=["with --since", "in the future"])
def test_an_impossible_declaration_is_refused(drain, options):
    at = clock.now() + dt.timedelta(hours=0 if options else 1)

    assert verify("--after-restore", at.isoformat(), *options)[0] == 2
    assert not Restore.objects.exists()


@pytest.mark.slow
def test_the_comparison_ignores_orders_whose_steps_look_up_what_was_done(drain, world, backup, product):
    place(product)
    backup.take()
    data_until = clock.now()
    carry_on(drain)
    restore(world, backup)
    verify("--after-restore", data_until.isoformat())
    report = examination.run(since=data_until, providers=True)

    assert not THEIRS & set(report.failed)
