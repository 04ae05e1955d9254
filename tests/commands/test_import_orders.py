"""Importing: an invoice becomes one order, even if it is imported twice, and every line is accounted for."""

from __future__ import annotations

import concurrent.futures
import gzip
import json
import os
import threading
from pathlib import Path

import pytest
from django.db import connection
from django.db.models import F, Sum

from orders.imports import importer
from orders.models import Order, OrderLine, Product
from outbox.models import OutboxMessage
from tests.processes import ROOT

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
DIRTY = HEADER + (
    "536365,85123A,WHITE HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"
    "536365,85123A,WHITE HEART,2,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"
    "536365,85123A,WHITE HEART,1,2010-12-01 08:26:00,2.10,17850.0,United Kingdom\n"
    "536365,71053,WHITE METAL LANTERN,6,2010-12-01 08:26:00,3.39,17850.0,United Kingdom\n"
    "C536379,22632,HAND WARMER,-1,2010-12-01 09:41:00,1.85,14527.0,United Kingdom\n"
    "536370,POST,POSTAGE,3,2010-12-01 08:45:00,18.00,12583.0,France\n"
    "536370,22728,ALARM CLOCK PINK,24,2010-12-01 08:45:00,3.75,12583.0,France\n"
    "536414,22139,damages,56,2010-12-01 11:52:00,0.0,,United Kingdom\n"
    "536544,21773,ROSE BATHROOM BOTTLE,1,2010-12-01 14:32:00,2.51,,United Kingdom\n"
    "536545,21774,?,-3,2010-12-01 14:33:00,2.51,17850.0,United Kingdom\n"
    "536546,21775,BOTTLE,many,2010-12-01 14:33:00,2.51,17850.0,United Kingdom\n"
    "536546,21775,BOTTLE,1,yesterday,2.51,17850.0,United Kingdom\n"
    "536546,21775,BOTTLE,1,2010-12-01 14:33:00,0.001,17850.0,United Kingdom\n"
    "536546,21775,BOTTLE,1,2010-12-01 14:33:00,2.51,17850.0,Atlantis\n"
    "536546,21775\n"
)
REJECTED = {
    "cancellation": 1,
    "no product": 1,
    "no price": 1,
    "no customer": 1,
    "no quantity": 1,
    "unreadable row": 4,
    "unknown country": 1,
}

REAL = Path(os.environ.get("ORDERFLOW_DATA", ROOT.parent / "shared" / "data" / "online-retail-2010-12.csv.gz"))
needs_real_data = pytest.mark.skipif(
    not REAL.is_file(), reason="the retailer's file is not there: name it in ORDERFLOW_DATA"
)


@pytest.fixture
def dirty(tmp_path):
    path = tmp_path / "dirty.csv"
    path.write_text(DIRTY)
    return path


def report(answer):
    return json.loads(answer.out)


def test_every_line_is_imported_merged_or_rejected_with_its_reason(run, dirty):
    result = report(run("import_orders", str(dirty), "--format", "json"))

    assert result["lines_read"] == 15
    assert (result["lines_imported"], result["lines_merged"]) == (4, 1)
    assert result["rejected"] == REJECTED
    assert result["orders_placed"] == 2
    order = Order.objects.get(client_reference="536365")
    assert order.total_minor == 8 * 255 + 210 + 6 * 339
    assert (order.customer_email, order.source) == ("customer-17850@example.com", "import")
    assert set(order.lines.values_list("product__sku", "quantity", "unit_price_minor")) == {
        ("85123A", 8, 255),
        ("85123A", 1, 210),
        ("71053", 6, 339),
    }


def test_importing_twice_changes_nothing(run, dirty):
    run("import_orders", str(dirty))
    before = list(Product.objects.values()), Order.objects.count(), OutboxMessage.objects.count()
    result = report(run("import_orders", str(dirty), "--format", "json"))

    assert (result["orders_placed"], result["orders_repeated"], result["lines_repeated"]) == (0, 2, 5)
    assert (list(Product.objects.values()), Order.objects.count(), OutboxMessage.objects.count()) == before


def test_a_dry_run_writes_nothing_and_reports_the_same(run, dirty):
    result = report(run("import_orders", str(dirty), "--dry-run", "--format", "json"))

    assert (result["orders_placed"], result["rejected"]) == (2, REJECTED)
    assert not Order.objects.exists()
    assert not Product.objects.exists()


def test_lines_without_a_customer_can_be_taken_as_a_guests(run, dirty):
    result = report(run("import_orders", str(dirty), "--no-customer", "guest", "--format", "json"))

    assert result["orders_placed"] == 3
    assert Order.objects.get(client_reference="536544").customer_email == ""


def test_the_limit_counts_invoices_and_the_report_still_adds_up(run, dirty):
    result = report(run("import_orders", str(dirty), "--limit", "1", "--format", "json"))

    assert result["orders_placed"] == 1
    assert result["lines_read"] == 6


def test_scarce_stock_leaves_large_orders_to_be_rejected(run, dirty, tmp_path, drain, world):
    path = tmp_path / "large.csv"
    path.write_text(HEADER + "1,85123A,WHITE HEART,101,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n")
    run("import_orders", str(path), "--stock", "scarce")
    drain()

    assert Order.objects.get().reason == "not in stock: 85123A"


LINE = "{},85123A,WHITE HEART,{},2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"


def test_invoices_that_changed_are_named_and_the_others_imported(run, tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text(HEADER + LINE.format(1, 1) + LINE.format(2, 1))
    run("import_orders", str(path))
    path.write_text(HEADER + LINE.format(1, 9) + LINE.format(2, 8) + LINE.format(3, 7))
    answer = run("import_orders", str(path), "--format", "json")

    assert answer.code == 1
    assert answer.error.startswith("2 of the invoices had been imported before with other lines")
    assert answer.error.endswith(": 1, 2.")
    assert report(answer)["invoices_changed"] == ["1", "2"]
    assert (report(answer)["orders_placed"], report(answer)["lines_changed"]) == (1, 2)
    assert list(Order.objects.order_by("client_reference").values_list("total_minor", flat=True)) == [
        255,
        255,
        7 * 255,
    ]
    assert Product.objects.get().received == 1 + 1 + 7


def test_two_imports_of_one_file_at_the_same_moment_are_one(transactional_db, tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text(HEADER + "".join(LINE.format(invoice, 2) for invoice in range(12)))
    start = threading.Barrier(2)

    def take(_):
        try:
            start.wait(timeout=30)
            *_, result = importer.run(path, importer.Options())
            return result
        finally:
            connection.close()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.map(take, range(2))

    assert first.orders_placed + second.orders_placed == 12
    assert first.orders_repeated + second.orders_repeated == 12
    assert Order.objects.count() == 12
    assert Product.objects.get().received == 12 * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the first line must be"),
        (b"a,b,c\n", "the first line must be"),
        (HEADER.encode() + b"\xff\xfe\n", "line 2, after 0 lines"),
        (None, "No such file"),
    ],
)
def test_an_unreadable_file_is_reported_in_a_sentence(run, tmp_path, content, message):
    path = tmp_path / "orders.csv"
    if content is not None:
        path.write_bytes(content)
    answer = run("import_orders", str(path))

    assert answer.code == 1
    assert message in answer.error


def test_a_truncated_gzip_is_reported_in_a_sentence(run, tmp_path):
    path = tmp_path / "orders.csv.gz"
    path.write_bytes(gzip.compress(DIRTY.encode() * 50)[:-20])

    assert "Cannot import" in run("import_orders", str(path)).error


@needs_real_data
def test_the_retailers_own_orders_are_worked_off_to_the_penny(run, drain, world):
    result = report(run("import_orders", str(REAL), "--limit", "25", "--format", "json"))
    assert result["orders_placed"] == 25
    drain()

    assert set(Order.objects.values_list("status", flat=True)) == {Order.Status.FULFILLED}
    assert_ledgers_agree(world, result)


@needs_real_data
@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_all_of_the_retailers_orders_are_worked_off_to_the_penny(run, drain, world, settings):
    settings.LARGEST_ORDER_MINOR = 10**9
    result = report(run("import_orders", str(REAL), "--no-customer", "guest", "--format", "json"))
    assert result["lines_read"] == 42_481
    drain()

    assert set(Order.objects.values_list("status", flat=True)) == {Order.Status.FULFILLED}
    assert_ledgers_agree(world, result)


def assert_ledgers_agree(world, result):
    """The providers' ledgers, the database and the import's report have the same sums."""
    charged = world.payments.ledger(kind="payment_intent")
    assert sum(intent["amount"] for intent in charged) == result["total_minor"]
    assert {intent["metadata"]["order_id"]: intent["amount"] for intent in charged} == {
        str(pk): total for pk, total in Order.objects.values_list("pk", "total_minor")
    }
    shipped = world.warehouse.ledger(kind="shipment")
    assert len(shipped) == len(charged)
    pieces = sum(line["quantity"] for shipment in shipped for line in shipment["lines"])
    assert pieces == OrderLine.objects.aggregate(pieces=Sum("quantity"))["pieces"]
    assert Product.objects.aggregate(shipped=Sum("shipped"))["shipped"] == pieces
    assert not Product.objects.exclude(on_hand=0, reserved=0).exists()
    assert (
        OrderLine.objects.aggregate(total=Sum(F("quantity") * F("unit_price_minor")))["total"]
        == (result["total_minor"])
    )
