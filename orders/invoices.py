"""
Reading the CSV of a UK online retailer, line by line: what can be ordered, and why the rest cannot.
"""

from __future__ import annotations

import collections
import csv
import datetime as dt
import gzip
import itertools
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, NamedTuple

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


class UnreadableFile(Exception):
    """The file as a whole cannot be imported; says why and what is expected."""


class Row(NamedTuple):
    """One line of an invoice that can be ordered. What it says, in this order, is what an import remembers."""

    invoice: str
    sku: str
    name: str
    quantity: int
    price_minor: int
    customer: str
    country: str


class Invoices:
    """The invoices of a file, one after the other; `lines_read` and `rejected` tell of the lines so far."""

    def __init__(self, path: Path, *, guests: bool, limit: int | None) -> None:
        self.path, self.guests, self.limit = path, guests, limit
        self.lines_read = 0
        self.rejected: collections.Counter[str] = collections.Counter()

    def __iter__(self) -> Iterator[list[Row]]:
        """
        Yield the lines of each invoice that can be ordered; of an invoice that comes again, as another one.

        Raises:
            UnreadableFile: if the file is not a CSV of this shape.
        """
        with _open(self.path) as text:
            groups = itertools.groupby(self._rows(text), key=lambda row: row.invoice)
            for number, (_, rows) in enumerate(groups):
                if self.limit is not None and number >= self.limit:
                    # groupby has read the first line of the next invoice; it is not part of this import.
                    self.lines_read -= 1
                    return
                yield list(rows)

    def _rows(self, text: IO[str]) -> Iterator[Row]:
        reader = csv.reader(text)
        try:
            header = next(reader, [])
            if header != COLUMNS:
                said = ",".join(header)[:200]
                raise UnreadableFile(f"the first line must be {','.join(COLUMNS)}, it is {said}")
            for fields in reader:
                self.lines_read += 1
                row = _row(fields, guests=self.guests)
                if isinstance(row, str):
                    self.rejected[row] += 1
                else:
                    yield row
        except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
            raise UnreadableFile(f"after {self.lines_read} lines: {error}") from error


def _open(path: Path) -> IO[str]:
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8", newline="")
        return path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error


def _row(fields: list[str], *, guests: bool) -> Row | str:
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
    if not customer and not guests:
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
