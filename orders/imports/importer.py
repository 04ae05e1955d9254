"""
Import of orders that were taken elsewhere, from the CSV of a UK online retailer.

One invoice is one order; its number is the idempotency key, so importing a file twice changes nothing, not even
concurrently. An invoice that was imported before with other lines is left as it was. A chunk of invoices is one
transaction: an interrupted import has done its last chunk or not, and continues from there when it is run
again. The whole file is read before the first order is placed, and every line of it is accounted for.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from django.db import DataError, connection, transaction

from orders import adapters, services, stock
from orders.imports.invoices import Invoices, Lines, Row
from orders.models import IdempotencyRecord, Product
from outbox import crash_points

SCOPE = "import:online-retail"
CURRENCY = "GBP"
CHUNK = 100
"""Invoices per transaction: enough to share its costs, and done in less than a second."""

MOST_NAMED = 1000
"""The number of changed invoices that a report lists; all are counted."""

FORMER_SPELLINGS = ("{}.0", "'{}", '="{}"')
"""Invoice numbers that spreadsheets had altered were stored as they were written."""

ENOUGH, SCARCE_STOCK = "enough", 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of an import."""

    card: str = "pm_card_visa"
    guests: bool = False
    stock: str = ENOUGH
    limit: int | None = None
    dry_run: bool = False
    chunk: int = CHUNK


@dataclasses.dataclass(kw_only=True)
class ImportReport:
    """The result for every line read; `lines_read` is the sum of the other counts of lines."""

    lines_read: int = 0
    lines_imported: int = 0
    lines_merged: int = 0
    lines_repeated: int = 0
    lines_changed: int = 0
    rejected: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    orders_placed: int = 0
    orders_repeated: int = 0
    orders_changed: int = 0
    total_minor: int = 0
    invoices_changed: list[str] = dataclasses.field(default_factory=list)
    """The first of those imported before with other lines; their orders are left as they are."""
    mistakes: list[str] = dataclasses.field(default_factory=list)
    """The first of the wrong lines and invoices, each with its reason."""

    @property
    def all_rejected(self) -> bool:
        """Whether there were lines, and none was valid."""
        return 0 < self.lines_read == self.rejected.total()

    def check(self) -> None:
        """
        Raises:
            AssertionError: if a line is not accounted for, which would be an error in this module.
        """
        taken = self.lines_imported + self.lines_merged + self.lines_repeated + self.lines_changed
        known = taken + self.rejected.total()
        assert known == self.lines_read, f"{self.lines_read} lines read, {known} accounted for"

    def as_dict(self) -> dict[str, object]:
        """The report as plain values."""
        return {**dataclasses.asdict(self), "rejected": dict(self.rejected)}


@dataclasses.dataclass(frozen=True)
class Invoice:
    """An invoice of the file, and its order."""

    rows: Sequence[Row]
    spelled: str
    """Its number as written in the file, which earlier releases stored."""
    key: services.IdempotencyKey
    items: Sequence[Row]
    """Its rows; rows of the same product at the same price are merged."""

    @classmethod
    def of(cls, lines: Lines) -> Invoice:
        """Build it from its lines."""
        return cls(lines.rows, lines.spelled, _key(lines.rows[0].invoice, lines.rows), _merged(lines.rows))

    @property
    def number(self) -> str:
        return self.key.key

    @property
    def total_minor(self) -> int:
        return sum(row.quantity * row.price_minor for row in self.items)

    @property
    def names(self) -> list[str]:
        """Its number, and the forms in which earlier releases may have stored it."""
        return [self.number, self.spelled, *(spelling.format(self.number) for spelling in FORMER_SPELLINGS)]

    def said_before(self, fingerprints: dict[str, str]) -> bool | None:
        """Whether its lines are those it was imported with before; None if it was not."""
        for name in self.names:
            if name in fingerprints:
                rows = [row._replace(invoice=name) for row in self.rows]
                return fingerprints[name] == _key(name, rows).fingerprint
        return None

    def order_request(self, options: Options) -> services.OrderRequest:
        """The order request for it."""
        first = self.rows[0]
        return services.OrderRequest(
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


def run(path: Path, options: Options) -> Iterator[ImportReport]:
    """
    Import the file, yielding the growing report after every chunk; rejected lines are complete only at the end.

    Raises:
        orders.imports.invoices.UnreadableFile: before any order is placed, if the file is damaged.
    """
    report, invoices = ImportReport(), Invoices(path, guests=options.guests, limit=options.limit)
    for chunk in _chunks(_chargeable(map(Invoice.of, invoices), invoices.rejected), options.chunk):
        if options.dry_run:
            _count(report, chunk, _look(chunk))
        else:
            for placed, before in _import_each(chunk, options, invoices.rejected):
                _count(report, placed, before)
        yield report
    report.lines_read, report.rejected, report.mistakes = (
        invoices.lines_read,
        invoices.rejected,
        invoices.mistakes,
    )
    report.check()
    yield report


def _chargeable(invoices: Iterable[Invoice], rejected: collections.Counter[str]) -> Iterator[Invoice]:
    """Yield the invoices whose total can be charged; the lines of the others are rejected."""
    refusal_of = adapters.payment_gateway().refusal_of
    for invoice in invoices:
        if refusal_of(invoice.total_minor, CURRENCY):
            rejected["total cannot be charged"] += len(invoice.rows)
        else:
            yield invoice


def _chunks(invoices: Iterable[Invoice], size: int) -> Iterator[list[Invoice]]:
    """Yield chunks of this size; a file contains an invoice once."""
    invoices = iter(invoices)
    while chunk := list(itertools.islice(invoices, size)):
        yield chunk


def _import_each(
    chunk: Sequence[Invoice], options: Options, rejected: collections.Counter[str]
) -> Iterator[tuple[Sequence[Invoice], dict[str, bool]]]:
    """
    Import the chunk; if one of its invoices cannot be stored, import each alone and reject those that fail.
    """
    try:
        yield chunk, _import(chunk, options)
    except (DataError, services.MixedCurrencies) as error:
        if len(chunk) > 1:
            for invoice in chunk:
                yield from _import_each([invoice], options, rejected)
        else:
            rejected[_refusal(error)] += len(chunk[0].rows)


def _refusal(error: DataError | services.MixedCurrencies) -> str:
    if isinstance(error, services.MixedCurrencies):
        return "product priced in another currency"
    if getattr(error.__cause__, "sqlstate", "") != "22003":  # numeric_value_out_of_range
        raise error
    return "sum too large to be stored"


def _import(chunk: Sequence[Invoice], options: Options) -> dict[str, bool]:
    """Place the orders of the new invoices; return the existing ones, as `_look` does."""
    with transaction.atomic(durable=True):
        _wait_for_other_imports()
        before = _look(chunk)
        new = [invoice for invoice in chunk if invoice.number not in before]
        if new:
            _create_products(new, options)
            services.place_orders([invoice.order_request(options) for invoice in new])
            if options.stock == ENOUGH:
                stock.receive(_quantities(new))
    crash_points.reached("import.chunk_placed")
    return before


def _wait_for_other_imports() -> None:
    """Let only one import write at a time, so that each sees what the other has placed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"import {SCOPE}"])


def _look(chunk: Sequence[Invoice]) -> dict[str, bool]:
    """The invoices that were imported before, by number, and whether their lines were the same."""
    keys = {name for invoice in chunk for name in invoice.names}
    records = IdempotencyRecord.objects.filter(scope=SCOPE, key__in=keys)
    fingerprints = dict(records.values_list("key", "fingerprint"))
    said = {invoice.number: invoice.said_before(fingerprints) for invoice in chunk}
    return {number: same for number, same in said.items() if same is not None}


def _create_products(invoices: Sequence[Invoice], options: Options) -> None:
    """Create the new products, at the price of their first sale."""
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


def _key(number: str, rows: Sequence[Row]) -> services.IdempotencyKey:
    return services.IdempotencyKey.of(scope=SCOPE, key=number, request=rows)


def _merged(rows: Sequence[Row]) -> list[Row]:
    merged: dict[tuple[str, int], Row] = {}
    for row in rows:
        key = (row.sku, row.price_minor)
        before = merged.get(key)
        merged[key] = row._replace(quantity=before.quantity + row.quantity) if before else row
    return list(merged.values())


def _count(report: ImportReport, chunk: Sequence[Invoice], before: dict[str, bool]) -> None:
    for invoice in chunk:
        lines = len(invoice.rows)
        if invoice.number not in before:
            report.orders_placed += 1
            report.lines_imported += len(invoice.items)
            report.lines_merged += lines - len(invoice.items)
            report.total_minor += invoice.total_minor
        elif before[invoice.number]:
            report.orders_repeated += 1
            report.lines_repeated += lines
        else:
            report.orders_changed += 1
            report.lines_changed += lines
            if len(report.invoices_changed) < MOST_NAMED:
                report.invoices_changed.append(invoice.number)
