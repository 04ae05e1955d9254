"""Importing malformed rows: each is rejected, and none stops the import."""

from __future__ import annotations

import json

import pytest

from orders.models import Order

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
GOOD = {
    "invoice": "1",
    "sku": "71053",
    "name": "LANTERN",
    "quantity": "1",
    "date": "2010-12-01 08:26:00",
    "price": "3.39",
    "customer": "17850.0",
    "country": "France",
}


def imported(run, tmp_path, *rows):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([HEADER, *(",".join(row.values()) for row in rows), ""]))
    answer = run("import_orders", str(path), "--format", "json")
    assert answer.error == ""
    return json.loads(answer.out)


@pytest.mark.parametrize(
    "change",
    [
        {"price": "sNaN"},
        {"price": "NaN"},
        {"price": "-Infinity"},
        {"price": "1e999999"},
        {"price": "10000000000000000000"},
        {"quantity": "1.5"},
        {"quantity": "9" * 5000},
        {"name": "LAN\x00TERN"},
        {"invoice": "1" * 300},
        {"invoice": ""},
        {"customer": "17850.5"},
        {"customer": "nan"},
        {"customer": "a@b, c"},
        {"date": ""},
    ],
    ids=lambda change: "-".join(f"{name}={value[:12]!r}" for name, value in change.items()),
)
def test_an_unreadable_row_is_rejected_and_the_next_one_imported(run, tmp_path, change):
    report = imported(run, tmp_path, GOOD | change, GOOD | {"invoice": "2"})

    assert report["rejected"] == {"unreadable row": 1}
    assert Order.objects.get().client_reference == "2"


def test_a_blank_line_and_a_line_too_many_are_accounted_for(run, tmp_path):
    report = imported(run, tmp_path, {"blank": ""}, GOOD, GOOD | {"invoice": "2", "more": "x"})

    assert (report["lines_read"], report["rejected"]) == (3, {"unreadable row": 2})
    assert report["mistakes"] == ["line 4: unreadable row"]


def test_a_suppliers_own_stock_code_is_a_product(run, tmp_path):
    report = imported(run, tmp_path, GOOD | {"sku": "DCGS0003", "name": "BOXED GLASS ASHTRAY"})

    assert (report["orders_placed"], report["rejected"]) == (1, {})
