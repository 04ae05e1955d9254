"""Importing in chunks: each is atomic, an interrupted import continues, and two at once act as one."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import threading
import time

import pytest
from django.db import connection, transaction

from orders import services, stock
from orders.imports import importer, invoices
from orders.models import IdempotencyRecord, Order, Product
from outbox.models import OutboxMessage
from tests.factories import ProductFactory, place

pytestmark = pytest.mark.django_db(transaction=True)

LINE = "{},{},WHITE HEART,{},2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"


@pytest.fixture
def file_of(tmp_path):
    """Write lines of (invoice, sku, quantity) into a file and return its path."""
    numbers = itertools.count()

    def file_of(*lines):
        path = tmp_path / f"{next(numbers)}.csv"
        path.write_text(",".join(invoices.COLUMNS) + "\n" + "".join(LINE.format(*line) for line in lines))
        return path

    return file_of


def taken(path, **options):
    *_, report = importer.run(path, importer.Options(**options))
    return report


def test_every_chunk_is_one_transaction_and_the_report_grows_by_it(file_of):
    path = file_of(*((invoice, "85123A", 1) for invoice in range(5)))

    seen = [
        (report.orders_placed, Order.objects.count())
        for report in importer.run(path, importer.Options(chunk=2))
    ]

    assert seen == [(2, 2), (4, 4), (5, 5), (5, 5)]


def test_an_interrupted_import_continues_where_it_stopped(file_of):
    path = file_of(*((invoice, "85123A", 2) for invoice in range(5)))
    half = importer.run(path, importer.Options(chunk=2))
    next(half)
    half.close()
    report = taken(path, chunk=2)

    assert (report.orders_repeated, report.orders_placed) == (2, 3)
    assert Order.objects.count() == OutboxMessage.objects.count() == 5
    assert Product.objects.get().received == 5 * 2


def test_an_invoice_that_cannot_be_placed_leaves_nothing_behind(file_of):
    ProductFactory(sku="71053", currency="EUR")
    before = list(Product.objects.values())
    report = taken(file_of((2, "71053", 1), (2, "85123A", 1)))

    assert report.rejected == {"product priced in another currency": 2}
    assert list(Product.objects.values()) == before
    for model in (Order, OutboxMessage, IdempotencyRecord):
        assert not model.objects.exists()


def test_a_dry_run_notices_what_was_imported_before(run, file_of):
    run("import_orders", str(file_of((1, "85123A", 1), (2, "85123A", 1))))
    path = file_of((1, "85123A", 1), (2, "85123A", 9), (3, "85123A", 1), (4, "85123A", 1), (3, "71053", 1))
    dry = run("import_orders", str(path), "--dry-run", "--format", "json")
    assert Order.objects.count() == 2

    wet = run("import_orders", str(path), "--format", "json")
    assert (dry.code, json.loads(dry.out)) == (wet.code, json.loads(wet.out))
    result = json.loads(dry.out)
    assert (result["orders_placed"], result["orders_repeated"], result["invoices_changed"]) == (2, 1, ["2"])


def test_the_stored_fingerprint_of_an_invoice_never_changes(file_of):
    """Otherwise every invoice that an earlier release imported would count as changed."""
    taken(file_of((536365, "85123A", 6)))

    assert IdempotencyRecord.objects.get().fingerprint == (
        services.IdempotencyKey.of(
            scope="import:online-retail",
            key="536365",
            request=[["536365", "85123A", "WHITE HEART", 6, 255, "17850", "GB"]],
        ).fingerprint
    )


def test_a_product_is_created_as_it_is_first_sold_and_only_receives_afterwards(file_of, tmp_path):
    ProductFactory(sku="71053", name="LANTERN", price_minor=339, stock=7)
    path = tmp_path / "two.csv"
    first = "1,85123A,FIRST NAME,1,2010-12-01 08:26:00,2.55,17850,France\n"
    second = "2,85123A,SECOND NAME,4,2010-12-01 08:26:00,2.10,17850,France\n"
    path.write_text(",".join(invoices.COLUMNS) + "\n" + first + second + LINE.format(3, "71053", 5))
    taken(path)

    columns = ("sku", "name", "price_minor", "on_hand", "received")
    assert list(Product.objects.order_by("sku").values_list(*columns)) == [
        ("71053", "LANTERN", 339, 12, 12),
        ("85123A", "FIRST NAME", 255, 5, 5),
    ]


@pytest.mark.parametrize("chunks", [(3, 3), (1, 5)])
def test_two_imports_whose_chunks_overlap_both_end_well(file_of, chunks):
    """The imports have the same invoices and products in opposite order, so that unordered locks deadlock."""
    lines = [(invoice, f"8512{invoice % 5}A", 2) for invoice in range(30)]
    files, start = [file_of(*lines), file_of(*reversed(lines))], threading.Barrier(2)

    def take(path, chunk):
        try:
            start.wait(timeout=30)
            return taken(path, chunk=chunk)
        finally:
            connection.close()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(take, files, chunks))

    assert sum(report.orders_placed for report in reports) == 30
    assert sum(report.orders_repeated for report in reports) == 30
    assert Order.objects.count() == OutboxMessage.objects.count() == 30
    assert sum(Product.objects.values_list("received", flat=True)) == 30 * 2


def test_an_import_and_orders_that_reserve_its_products_do_not_deadlock(file_of):
    """Both lock products in the order of their ids, which is not that of their SKUs."""
    first, second = ProductFactory(sku="20000B"), ProductFactory(sku="10000A")
    one, other = place(first), place(second)
    path = file_of((1, first.sku, 3), (2, second.sku, 3))

    def take():
        try:
            return taken(path)
        finally:
            connection.close()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            stock.reserve(one)
            importing = pool.submit(take)
            wait_until_somebody_waits_for_a_lock()
            stock.reserve(other)
        assert importing.result(timeout=30).orders_placed == 2

    assert set(Product.objects.values_list("reserved", "received")) == {(2, 1003)}


def wait_until_somebody_waits_for_a_lock():
    deadline = time.monotonic() + 30
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute(
                "SELECT EXISTS (SELECT FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock')"
            )
            if cursor.fetchone()[0]:
                return
            cursor.execute("SELECT pg_stat_clear_snapshot()")  # it is cached for the whole transaction
    pytest.fail("nobody waits")


def test_a_slow_import_writes_the_allowed_orders_of_each_second(run, file_of):
    run("import_orders", str(file_of(*((invoice, "85123A", 1) for invoice in range(5)))), "--rate", "2.9")

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM orders_order GROUP BY xmin::text ORDER BY min(client_reference)")
        assert cursor.fetchall() == [(2,), (2,), (1,)]
