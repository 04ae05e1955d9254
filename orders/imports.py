"""
Importing orders that were taken elsewhere, from the CSV of a UK online retailer.

One invoice is one order; its number is the idempotency key, so importing a file twice changes nothing,
not even at the same moment. An invoice that was imported before with other lines is left as it was.
A chunk of invoices is one transaction: an import that dies has done its last chunk or not, and goes on from
there when it is run again. The file is read as it is imported, and every line read is accounted for.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from django.db import connection, transaction

from orders import services, stock
from orders.invoices import Invoices, Row
from orders.models import IdempotencyRecord, Product
from outbox import crash_points

SCOPE = "import:online-retail"
CURRENCY = "GBP"
CHUNK = 100
"""Invoices of one transaction: enough to share its costs, and done in less than a second."""

ENOUGH, SCARCE_STOCK = "enough", 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The policies of an import."""

    card: str = "pm_card_visa"
    guests: bool = False
    stock: str = ENOUGH
    limit: int | None = None
    dry_run: bool = False
    chunk: int = CHUNK


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


@dataclasses.dataclass(frozen=True)
class Invoice:
    """An invoice of the file, and what it is as an order."""

    rows: Sequence[Row]
    key: services.IdempotencyKey
    items: Sequence[Row]
    """Its rows, those of the same product at the same price added up."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Invoice:
        """Read its lines as an order."""
        key = services.IdempotencyKey.of(scope=SCOPE, key=rows[0].invoice, request=rows)
        return cls(rows, key, _merged(rows))

    @property
    def number(self) -> str:
        return self.key.key

    def wish(self, options: Options) -> services.Wish:
        """The order to be placed for it."""
        first = self.rows[0]
        return services.Wish(
            items=[
                services.Item(sku=row.sku, quantity=row.quantity, unit_price_minor=row.price_minor)
                for row in self.items
            ],
            currency=CURRENCY,
            payment_method=options.card,
            contact=services.Contact(
                name=f"Customer {first.customer}" if first.customer else "Guest",
                email=f"customer-{first.customer}@example.com" if first.customer else "",
            ),
            country=first.country,
            source="import",
            client_reference=self.number,
            idempotency=self.key,
        )


def run(path: Path, options: Options) -> Iterator[Report]:
    """
    Import the file, yielding the growing report after every chunk; of lines rejected it tells at the end.

    Raises:
        orders.invoices.UnreadableFile: if the file is not a CSV of this shape. The chunks before stay.
    """
    report, invoices = Report(), Invoices(path, guests=options.guests, limit=options.limit)
    read: dict[str, str] = {}
    for chunk in _chunks(map(Invoice.of, invoices), options.chunk):
        before = _look_only(chunk, read) if options.dry_run else _import(chunk, options)
        _count(report, chunk, before)
        yield report
    report.lines_read, report.rejected = invoices.lines_read, invoices.rejected
    report.check()
    yield report


def _chunks(invoices: Iterable[Invoice], size: int) -> Iterator[list[Invoice]]:
    """So many at a time; an invoice that comes again begins a new chunk, and finds what it was before."""
    chunk: dict[str, Invoice] = {}
    for invoice in invoices:
        if len(chunk) == size or invoice.number in chunk:
            yield list(chunk.values())
            chunk = {}
        chunk[invoice.number] = invoice
    if chunk:
        yield list(chunk.values())


def _import(chunk: Sequence[Invoice], options: Options) -> dict[str, str]:
    """Place the orders of the invoices that are new; return which were there before, as `_look` does."""
    with transaction.atomic(durable=True):
        _wait_for_other_imports()
        before = _look(chunk)
        new = [invoice for invoice in chunk if invoice.number not in before]
        if new:
            _create_products(new, options)
            services.place_orders([invoice.wish(options) for invoice in new])
            if options.stock == ENOUGH:
                stock.receive(_quantities(new))
    crash_points.reached("import.chunk_placed")
    return before


def _wait_for_other_imports() -> None:
    """Let one import write at a time, so that each finds what the other has placed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"import {SCOPE}"])


def _look(chunk: Sequence[Invoice]) -> dict[str, str]:
    """The invoices that were imported before, by number, with the fingerprints of what they said then."""
    keys = [invoice.number for invoice in chunk]
    before = IdempotencyRecord.objects.filter(scope=SCOPE, key__in=keys)
    return dict(before.values_list("key", "fingerprint"))


def _look_only(chunk: Sequence[Invoice], read: dict[str, str]) -> dict[str, str]:
    """What `_import` would return if it had written the invoices in `read`, which those of the chunk join."""
    before = _look(chunk)
    for invoice in chunk:
        if invoice.number in read:
            before.setdefault(invoice.number, read[invoice.number])
        else:
            read[invoice.number] = invoice.key.fingerprint
    return before


def _create_products(invoices: Sequence[Invoice], options: Options) -> None:
    """Create the products that are new, at the price they are first sold for."""
    rows = {row.sku: row for invoice in reversed(invoices) for row in reversed(invoice.items)}
    known = set(Product.objects.filter(sku__in=rows).values_list("sku", flat=True))
    start = 0 if options.stock == ENOUGH else SCARCE_STOCK
    Product.objects.bulk_create(
        [
            Product(
                sku=sku,
                name=row.name or sku,
                price_minor=row.price_minor,
                currency=CURRENCY,
                on_hand=start,
                received=start,
            )
            for sku, row in sorted(rows.items())
            if sku not in known
        ],
        ignore_conflicts=True,
    )


def _quantities(invoices: Sequence[Invoice]) -> collections.Counter[str]:
    wanted: collections.Counter[str] = collections.Counter()
    for invoice in invoices:
        for row in invoice.items:
            wanted[row.sku] += row.quantity
    return wanted


def _merged(rows: Sequence[Row]) -> list[Row]:
    merged: dict[tuple[str, int], Row] = {}
    for row in rows:
        key = (row.sku, row.price_minor)
        before = merged.get(key)
        merged[key] = row._replace(quantity=before.quantity + row.quantity) if before else row
    return list(merged.values())


def _count(report: Report, chunk: Sequence[Invoice], before: dict[str, str]) -> None:
    for invoice in chunk:
        lines = len(invoice.rows)
        if invoice.number not in before:
            report.orders_placed += 1
            report.lines_imported += len(invoice.items)
            report.lines_merged += lines - len(invoice.items)
            report.total_minor += sum(row.quantity * row.price_minor for row in invoice.items)
        elif before[invoice.number] == invoice.key.fingerprint:
            report.orders_repeated += 1
            report.lines_repeated += lines
        else:
            report.invoices_changed.append(invoice.number)
            report.lines_changed += lines
