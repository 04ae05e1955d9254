"""
Parsing of the CSV of a UK online retailer: which lines are valid, and why others are not.

The whole file is read before the first invoice is yielded, so that a damaged one is refused before any order is
placed. An invalid line rejects its whole invoice; a line that is not a product, such as postage or a
cancellation, rejects only itself.
"""

from __future__ import annotations

import collections
import datetime as dt
import re
import sqlite3
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from orders.imports import spellings
from orders.imports.invoice_files import UnreadableFile, records
from orders.imports.spool import Line, Spool

__all__ = ["COLUMNS", "Invoices", "Lines", "Row", "UnreadableFile"]

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
PRODUCT = re.compile(r"\d{5}[A-Za-z]{0,2}|DCGS[A-Za-z0-9]{1,10}", re.ASCII | re.IGNORECASE)
"""The format of a product's stock code; DCGS… are a supplier's own. POST, DOT, M, BANK CHARGES and gift
vouchers do not match."""
NO_PRODUCT = re.compile(r"[A-Za-z][A-Za-z0-9_ .&/-]*", re.ASCII)
"""The format of codes that are not products. Any other code was a product's before it was damaged: without that
line, the order would be incomplete."""

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
"""
The retailer's country names as ISO 3166 codes; ZZ is the code for "not known". All that the data set contains.
"""

CUSTOMER = re.compile(r"(\d{1,12})?", re.ASCII)
QUANTITY = re.compile(r"[+-]?\d{1,12}", re.ASCII)
PRICE = re.compile(r"[+-]?\d{1,12}(\.\d{0,14})?([eE][+-]?\d{1,2})?", re.ASCII)
"""The maximum number of digits for exact arithmetic."""
LARGEST_QUANTITY = 1_000_000
LARGEST_PRICE = 1_000_000
"""In pounds; far above every real one, so that every parsed value fits its column."""
MOST_OF_ONE = 2**31 - 1
"""The largest quantity of one product on one invoice that fits the column."""
MOST_LINES = 10_000
"""Lines of one invoice: many times the longest real one, and few enough to hold in memory."""
MOST_NAMED = 50
"""The number of mistakes in a file that are listed; all are counted."""

UNREADABLE, NO_CUSTOMER = "unreadable row", "no customer"
BESIDE = "another line of the invoice is wrong"
APART = "lines of the invoice lie apart and repeat a product"


class Row(NamedTuple):
    """One valid line of an invoice. An import stores these values, in this order."""

    invoice: str
    sku: str
    name: str
    quantity: int
    price_minor: int
    customer: str
    country: str


class Lines(NamedTuple):
    """The valid lines of an invoice, and the invoice's number as written in the file."""

    rows: list[Row]
    spelled: str


class Rejected(NamedTuple):
    """Why a line is invalid, and whether that rejects its whole invoice."""

    reason: str
    damages: bool = False


WRONG = Rejected(UNREADABLE, damages=True)


class Invoices:
    """The invoices of a file; `lines_read`, `rejected` and `mistakes` cover the invoices so far."""

    def __init__(self, path: Path, *, guests: bool, limit: int | None) -> None:
        self.path, self.guests, self.limit = path, guests, limit
        self.lines_read = 0
        self.rejected: collections.Counter[str] = collections.Counter()
        self.mistakes: list[str] = []
        """The first of the wrong lines and invoices, each with its reason."""

    def __iter__(self) -> Iterator[Lines]:
        """
        Yield the valid lines of each invoice.

        Raises:
            UnreadableFile: before the first invoice, if the file is damaged.
        """
        spool = Spool()
        try:
            self._read(spool)
            yield from self._judged(spool)
        except sqlite3.Error as error:
            raise UnreadableFile(f"the folder for temporary files does not take it: {error}") from error
        finally:
            spool.close()

    def _read(self, spool: Spool) -> None:
        before = ""
        for number, fields in enumerate(records(self.path, COLUMNS), start=2):
            spelled = fields[0].strip() if fields else ""
            invoice, row = spellings.invoice_number(spelled), _row(fields, guests=self.guests)
            if isinstance(row, Row):
                spool.add(number, invoice, spelled, "", list(row))
                before = invoice
                continue
            spool.add(number, invoice, spelled, row.reason, None)
            if row.damages and any(field.strip() for field in fields):
                # A line without an invoice number belongs to the one above, as in a table with merged cells.
                spool.damage(invoice or before)
                self._name(f"line {number}: {row.reason}")
            before = invoice or before

    def _judged(self, spool: Spool) -> Iterator[Lines]:
        taken = 0
        for key, number, damaged in spool.invoices():
            reasons = spool.reasons(key)
            reason, lines = _doubt(spool.lines(key, MOST_LINES + 1), damaged=damaged)
            if reason:
                reasons[reason] += reasons.pop("", 0)
                self._count(reasons)
                if not damaged:
                    self._name(f"invoice {number}: {reason}")
            elif not lines:
                self._count(reasons)
            elif taken == self.limit:
                self._count(spool.reasons_beyond(key, lines[0].number))
                self._count(spool.reasons_of_none(lines[0].number))
                return
            else:
                taken += 1
                self._count(reasons)
                yield Lines([_restored(line) for line in lines], lines[0].spelled)
        self._count(spool.reasons_of_none(None))

    def _count(self, reasons: collections.Counter[str]) -> None:
        self.lines_read += reasons.total()
        self.rejected.update({reason: lines for reason, lines in reasons.items() if reason and lines})

    def _name(self, mistake: str) -> None:
        if len(self.mistakes) < MOST_NAMED:
            self.mistakes.append(mistake)


def _restored(line: Line) -> Row:
    assert line.read is not None
    return Row(*line.read)


def _doubt(lines: Sequence[Line], *, damaged: bool) -> tuple[str, list[Line]]:
    """Return why the whole invoice is rejected, empty if it is not, and its valid lines."""
    good = [line for line in lines if not line.reason]
    if damaged:
        return BESIDE, good
    if len(lines) > MOST_LINES:
        return f"more than {MOST_LINES} lines on the invoice", good
    if not good:
        return "", good
    rows = [_restored(line) for line in good]
    without = any(line.reason == NO_CUSTOMER for line in lines)
    if len({(row.customer, row.country) for row in rows}) > 1 or without:
        return "lines of the invoice are of different customers", good
    if len({_zeros(line.spelled) for line in good}) > 1:
        return "the invoice's number is spelled in ways that may be different numbers", good
    if _repeats_apart(good):
        return APART, good
    if _largest(rows) > MOST_OF_ONE:
        return "the quantities of the invoice add up to too many", good
    return "", good


def _zeros(spelled: str) -> int:
    """The leading zeros of a number: spreadsheets drop them, and in other shops they are significant."""
    number = spellings.meant(spelled)
    return len(number) - len(number.lstrip("0")) if number.isdecimal() else 0


def _repeats_apart(lines: Sequence[Line]) -> bool:
    """Whether two separate parts of the file name the same product: more of it, or a duplicate."""
    parts: dict[str, int] = {}
    return any(parts.setdefault(_restored(line).sku, line.part) != line.part for line in lines)


def _largest(rows: Sequence[Row]) -> int:
    quantities: collections.Counter[tuple[str, int]] = collections.Counter()
    for row in rows:
        quantities[row.sku, row.price_minor] += row.quantity
    return max(quantities.values())


def _row(fields: list[str], *, guests: bool) -> Row | Rejected:
    """Return the line as a row, or why it is rejected."""
    if len(fields) != len(COLUMNS):
        return WRONG
    spelled, sku, name, quantity_text, date, price_text, customer, country = (field.strip() for field in fields)
    sku, customer = spellings.meant(sku), spellings.meant(customer)
    invoice, is_product = spellings.invoice_number(spelled), PRODUCT.fullmatch(sku)
    quantity, price = _quantity(spellings.meant(quantity_text)), _price(price_text)
    if not invoice or quantity is None or price is None or not _is_date(date):
        # A line that is not a product is not part of an order, whatever its other fields contain.
        return Rejected(UNREADABLE, damages=not invoice or bool(is_product) or _was_a_product(sku))
    if not CUSTOMER.fullmatch(customer) or not spellings.storable("".join(fields)):
        return WRONG
    if invoice.upper().startswith("C"):
        return Rejected("cancellation")
    if not is_product:
        return Rejected("no product", damages=_was_a_product(sku))
    if not 0 < quantity <= LARGEST_QUANTITY:
        return Rejected("no quantity", damages=quantity > 0)
    if price <= 0:
        return Rejected("no price")
    if country not in COUNTRIES:
        return Rejected("unknown country", damages=True)
    if not customer and not guests:
        return Rejected(NO_CUSTOMER)
    return Row(
        invoice=invoice,
        sku=sku.upper(),
        name=name[:200],
        quantity=quantity,
        price_minor=int(price * 100),
        customer=customer,
        country=COUNTRIES[country],
    )


def _was_a_product(sku: str) -> bool:
    """Whether an invalid code may once have been a product's."""
    return not NO_PRODUCT.fullmatch(sku) or spellings.is_nothing(sku)


def _quantity(text: str) -> int | None:
    return int(text) if QUANTITY.fullmatch(text) else None


def _price(text: str) -> Decimal | None:
    """The price in pounds, in whole pence; None if it is invalid, or may be a thousand times as much."""
    written = spellings.meant(text)
    if not PRICE.fullmatch(written) or spellings.is_ambiguous(text):
        return None
    price = Decimal(written)
    return price if abs(price) <= LARGEST_PRICE and not price * 100 % 1 else None


def _is_date(text: str) -> bool:
    try:
        dt.datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
