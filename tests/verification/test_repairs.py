"""Repairs have a dry run, need a reason, check again under a lock, and leave a record."""

from __future__ import annotations

import pytest
from django.db import connection

from orders.models import Order, Payment, Product, Refund
from outbox import telemetry
from outbox.models import Delivery, OutboxMessage, RepairRecord
from outbox.verification import catalogue, examination
from tests.verification.corruptions import CORRUPTIONS, spoil

pytestmark = pytest.mark.django_db

REPAIRABLE = [
    invariant.name for invariant in catalogue.invariants() if invariant.repair and not invariant.needs_providers
]


def state():
    tables = (Order, Product, Payment, Refund, OutboxMessage, RepairRecord)
    return {model: list(model.objects.order_by("pk").values()) for model in tables}


@pytest.mark.parametrize("name", REPAIRABLE)
def test_a_dry_run_shows_what_would_be_done_and_changes_nothing(books, name):
    spoil(books, CORRUPTIONS[name])
    before = state()
    [would] = examination.repair(examination.run())

    assert (would.invariant, bool(would.what)) == (name, True)
    assert state() == before


@pytest.mark.parametrize("name", REPAIRABLE)
def test_a_repair_is_done_once_and_leaves_a_record(books, name, django_capture_on_commit_callbacks):
    spoil(books, CORRUPTIONS[name])
    report, signals = examination.run(), []

    def receiver(signal, fields):
        signals.append(signal)

    telemetry.register(receiver)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            [did] = examination.repair(report, by="cli:ada", reason=" stranded ", apply=True)
    finally:
        telemetry.unregister(receiver)

    record = RepairRecord.objects.get()
    assert (record.invariant, record.subject, record.what) == (name, did.subject, did.what)
    assert (record.repaired_by, record.reason) == ("cli:ada", "stranded")
    assert signals == ["verification.repaired"]
    assert examination.run().passed
    assert examination.repair(report, by="cli:ada", reason="again", apply=True) == []


def test_a_repair_needs_a_reason(books):
    with pytest.raises(examination.ReasonMissing):
        examination.repair(examination.run(), by="cli:ada", apply=True)


def test_an_order_that_is_started_again_is_delivered_by_its_own_message(books):
    spoil(books, CORRUPTIONS["unfinished-orders-go-on"])
    examination.repair(examination.run(), by="x", reason="x", apply=True)

    delivery = Delivery.objects.get(message_id=books.waiting.message_id)
    assert (delivery.status, delivery.workflow) == ("waiting", "orders.workflows.fulfillment")


def test_only_what_no_order_holds_is_released(books):
    [held] = Product.objects.filter(reserved__gt=0)
    Product.objects.filter(pk=held.pk).update(reserved=held.reserved + 3, on_hand=held.on_hand - 3)
    examination.repair(examination.run(), by="x", reason="x", apply=True)

    held_now = Product.objects.get(pk=held.pk)
    assert (held_now.reserved, held_now.on_hand) == (held.reserved, held.on_hand)


def test_too_little_reserved_stock_is_left_to_people(books):
    [held] = Product.objects.filter(reserved__gt=0)
    Product.objects.filter(pk=held.pk).update(reserved=0, on_hand=held.on_hand + held.reserved)
    report = examination.run()

    assert report.failed == ["reservations-are-held"]
    assert examination.repair(report, by="x", reason="x", apply=True) == []


def test_a_repair_that_finds_the_order_moved_on_does_nothing(books):
    spoil(books, CORRUPTIONS["unfinished-orders-go-on"])
    report = examination.run()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE orders_order SET due_at = now() + interval '1 minute' WHERE id = %s", [books.waiting.pk]
        )

    assert examination.repair(report, by="x", reason="x", apply=True) == []
