"""
Importing orders that were taken elsewhere, from the CSV of a UK online retailer.

One invoice is one order; its number is the idempotency key, so importing a file twice changes nothing,
not even at the same moment. An invoice that was imported before with other lines is left as it was.
The file is read line by line, an invoice at a time, and every line read is accounted for in the report.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import datetime as dt
import gzip
import itertools
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO

from django.db import connection
from django.db.models import F

from orders import services
from orders.models import IdempotencyRecord, Product

COLUMNS = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
]
SCOPE = "import:online-retail"
CURRENCY = "GBP"
PRODUCT = re.compile(r"\d{5}[A-Za-z]{0,2}|DCGS[A-Za-z0-9]{1,10}", re.ASCII)
"""What a stock code of a product looks like, DCGS… being a supplier's own. POST, DOT, M, BANK CHARGES and
gift vouchers are none."""

COUNTRIES = {
    "Australia": "AU",
    "Austria": "AT",
    "Bahrain": "BH",
    "Belgium": "BE",
    "Brazil": "BR",
    "Canada": "CA",
    "Channel Islands": "JE",
    "Cyprus": "CY",
    "Czech Republic": "CZ",
    "Denmark": "DK",
    "EIRE": "IE",
    "European Community": "ZZ",
    "Finland": "FI",
    "France": "FR",
    "Germany": "DE",
    "Greece": "GR",
    "Hong Kong": "HK",
    "Iceland": "IS",
    "Israel": "IL",
    "Italy": "IT",
    "Japan": "JP",
    "Lebanon": "LB",
    "Lithuania": "LT",
    "Malta": "MT",
    "Netherlands": "NL",
    "Norway": "NO",
    "Poland": "PL",
    "Portugal": "PT",
    "RSA": "ZA",
    "Saudi Arabia": "SA",
    "Singapore": "SG",
    "Spain": "ES",
    "Sweden": "SE",
    "Switzerland": "CH",
    "USA": "US",
    "United Arab Emirates": "AE",
    "United Kingdom": "GB",
    "Unspecified": "ZZ",
}
"""The retailer's names as ISO 3166 codes; ZZ is the code for "not known". All that the data set has."""

CUSTOMER = re.compile(r"(\d{1,12}(\.0)?)?", re.ASCII)
LONGEST_INVOICE = 50
LARGEST_QUANTITY = 1_000_000
LARGEST_PRICE = 1_000_000
"""In pounds; far above every real one, so that whatever is read fits the columns it is written to."""
ENOUGH, SCARCE_STOCK = "enough", 100


class UnreadableFile(Exception):
    """The file as a whole cannot be imported; says why and what is expected."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of an invoice that can be ordered."""

    invoice: str
    sku: str
    name: str
    quantity: int
    price_minor: int
    customer: str
    country: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The policies of an import."""

    card: str = "pm_card_visa"
    guests: bool = False
    stock: str = ENOUGH
    limit: int | None = None
    dry_run: bool = False


@dataclasses.dataclass(kw_only=True)
class Report:
    """What became of every line read; `lines_read` is the sum of all the others that speak of lines."""

    lines_read: int = 0
    lines_imported: int = 0
    lines_merged: int = 0
    lines_repeated: int = 0
    lines_changed: int = 0
    rejected: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    orders_placed: int = 0
    orders_repeated: int = 0
    total_minor: int = 0
    invoices_changed: list[str] = dataclasses.field(default_factory=list)
    """Imported before with other lines; their orders are left as they are."""

    def check(self) -> None:
        """
        Raises:
            AssertionError: if a line is not accounted for, which would be a mistake in this module.
        """
        taken = self.lines_imported + self.lines_merged + self.lines_repeated + self.lines_changed
        known = taken + self.rejected.total()
        assert known == self.lines_read, f"{self.lines_read} lines read, {known} accounted for"

    def as_dict(self) -> dict[str, object]:
        """The report as plain values."""
        return {**dataclasses.asdict(self), "rejected": dict(self.rejected)}


def run(path: Path, options: Options) -> Iterator[Report]:
    """
    Import the file, yielding the growing report after every invoice.

    Raises:
        UnreadableFile: if the file is not a CSV of this shape.
    """
    report = Report()
    with _open(path) as text:
        lines = _lines(text, report, options)
        for invoices, (invoice, rows) in enumerate(itertools.groupby(lines, key=lambda row: row.invoice)):
            if options.limit is not None and invoices >= options.limit:
                # groupby has read the first line of the next invoice already; it is not part of this import.
                report.lines_read -= 1
                break
            _import(invoice, list(rows), report, options)
            yield report
    report.check()
    yield report


def _open(path: Path) -> IO[str]:
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8", newline="")
        return path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error


def _lines(text: IO[str], report: Report, options: Options) -> Iterator[Row]:
    reader = csv.reader(text)
    try:
        header = next(reader, [])
        if header != COLUMNS:
            raise UnreadableFile(f"the first line must be {','.join(COLUMNS)}, it is {','.join(header)[:200]}")
        for fields in reader:
            report.lines_read += 1
            row = _row(fields, options)
            if isinstance(row, str):
                report.rejected[row] += 1
            else:
                yield row
    except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise UnreadableFile(f"after {report.lines_read} lines: {error}") from error


def _row(fields: list[str], options: Options) -> Row | str:
    """The line as a row, or the reason why it is rejected."""
    if len(fields) != len(COLUMNS):
        return "unreadable row"
    invoice, sku, name, quantity_text, date, price_text, customer, country = (field.strip() for field in fields)
    try:
        quantity, price = int(quantity_text), Decimal(price_text)
        dt.datetime.fromisoformat(date)
    except (ValueError, InvalidOperation):
        return "unreadable row"
    if not price.is_finite() or abs(price) > LARGEST_PRICE or price * 100 % 1:
        return "unreadable row"
    if not 0 < len(invoice) <= LONGEST_INVOICE or not CUSTOMER.fullmatch(customer) or "\x00" in name:
        return "unreadable row"
    if invoice.upper().startswith("C"):
        return "cancellation"
    if not PRODUCT.fullmatch(sku):
        return "no product"
    if not 0 < quantity <= LARGEST_QUANTITY:
        return "no quantity"
    if price <= 0:
        return "no price"
    if country not in COUNTRIES:
        return "unknown country"
    if not customer and not options.guests:
        return "no customer"
    return Row(
        invoice=invoice,
        sku=sku.upper(),
        name=name[:200],
        quantity=quantity,
        price_minor=int(price * 100),
        customer=customer.removesuffix(".0"),
        country=COUNTRIES[country],
    )


def _import(invoice: str, rows: list[Row], report: Report, options: Options) -> None:
    merged = _merge(rows)
    total = sum(row.quantity * row.price_minor for row in merged)
    if options.dry_run:
        _count(report, rows, merged, total, replayed=False)
        return
    with _alone(invoice):
        try:
            replayed = _place(invoice, rows, merged, options)
        except services.KeyReused:
            report.invoices_changed.append(invoice)
            report.lines_changed += len(rows)
            return
    _count(report, rows, merged, total, replayed=replayed)


@contextlib.contextmanager
def _alone(invoice: str) -> Iterator[None]:
    """Let other imports wait with this invoice, until both its stock and its order are written."""
    name = [f"import {SCOPE} {invoice}"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", name)
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", name)


def _place(invoice: str, rows: list[Row], merged: list[Row], options: Options) -> bool:
    """
    Place the order of an invoice; return whether that was done before.

    Raises:
        services.KeyReused: if it was done before, with other lines.
    """
    if not IdempotencyRecord.objects.filter(scope=SCOPE, key=invoice).exists():
        _stock(merged, options)
    first = rows[0]
    return services.place_order(
        items=[
            services.Item(sku=row.sku, quantity=row.quantity, unit_price_minor=row.price_minor)
            for row in merged
        ],
        currency=CURRENCY,
        payment_method=options.card,
        contact=services.Contact(
            name=f"Customer {first.customer}" if first.customer else "Guest",
            email=f"customer-{first.customer}@example.com" if first.customer else "",
        ),
        country=first.country,
        source="import",
        client_reference=invoice,
        idempotency=services.IdempotencyKey.of(
            scope=SCOPE, key=invoice, request=[dataclasses.astuple(row) for row in rows]
        ),
    ).replayed


def _merge(rows: list[Row]) -> list[Row]:
    """Add up the lines of one product at one price."""
    merged: dict[tuple[str, int], Row] = {}
    for row in rows:
        key = (row.sku, row.price_minor)
        before = merged.get(key)
        merged[key] = dataclasses.replace(row, quantity=before.quantity + row.quantity) if before else row
    return list(merged.values())


def _count(report: Report, rows: list[Row], merged: list[Row], total: int, *, replayed: bool) -> None:
    if replayed:
        report.orders_repeated += 1
        report.lines_repeated += len(rows)
        return
    report.orders_placed += 1
    report.lines_imported += len(merged)
    report.lines_merged += len(rows) - len(merged)
    report.total_minor += total


def _stock(rows: list[Row], options: Options) -> None:
    """Create the products that are new; with enough stock, receive what this invoice takes."""
    known = set(Product.objects.filter(sku__in=[row.sku for row in rows]).values_list("sku", flat=True))
    start = 0 if options.stock == ENOUGH else SCARCE_STOCK
    new = {
        row.sku: Product(
            sku=row.sku,
            name=row.name or row.sku,
            price_minor=row.price_minor,
            currency=CURRENCY,
            on_hand=start,
            received=start,
        )
        for row in rows
        if row.sku not in known
    }
    Product.objects.bulk_create(new.values(), ignore_conflicts=True)
    if options.stock == ENOUGH:
        for row in sorted(rows, key=lambda row: row.sku):
            Product.objects.filter(sku=row.sku).update(
                on_hand=F("on_hand") + row.quantity, received=F("received") + row.quantity
            )
