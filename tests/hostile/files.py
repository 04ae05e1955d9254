"""Files from people, spreadsheets and attackers for the import, by the expected result."""

from __future__ import annotations

import gzip
import io
import zipfile

from orders.imports import invoice_files
from orders.imports.invoices import COLUMNS

HEADER = ",".join(COLUMNS) + "\n"
LINE = "{},{},{},{},2010-12-01 08:26:00,{},{},{}\n"


def line(
    invoice="1", sku="71053", name="LANTERN", quantity="1", price="3.39", customer="17850", country="France"
):
    return LINE.format(invoice, sku, name, quantity, price, customer, country)


def _zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("orders.csv", HEADER + line())
    return packed.getvalue()


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


GOOD = (HEADER + line("1") + line("2") + line("3")).encode()
PACKED = gzip.compress((HEADER + "".join(line(str(number)) for number in range(500))).encode())

DAMAGED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "line 1"),
    "another header": (b"a,b,c\n" + GOOD, "line 1"),
    "no header": (GOOD.partition(b"\n")[2], "line 1"),
    "semicolons": (GOOD.replace(b",", b";"), "line 1"),
    "tabs": (GOOD.replace(b",", b"\t"), "line 1"),
    "a separator line": (b"sep=,\n" + GOOD, "line 1"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": (GOOD.decode().encode("utf-16-le"), "line 1"),
    "Windows-1252": (GOOD + line("4", name="CAF\xc9").encode("cp1252"), "line 5"),
    "half a character at the end": (GOOD + line("4", country="Fran\xe9").encode()[:-2], "line 5"),
    "a lone surrogate": (GOOD + line("4", name="\ud800").encode("utf-8", "surrogatepass"), "line 5"),
    "a quote that does not close": (GOOD + line("4", name='"LANTERN').encode() + line("5").encode(), "line 5"),
    "a quote that closes three lines later": (
        GOOD + (line("4", name='"LANTERN') + line("5") + line("6", name='LANTERN"')).encode(),
        "line 5",
    ),
    "a text after the quotes": (GOOD + line("4", name='"LANTERN" RED').encode(), "line 5"),
    "a text of two lines": (GOOD + line("4", name='"LANTERN\nRED"').encode(), "line 5"),
    "a quote that does not close, at the end": (GOOD + line("4", country='"France').encode()[:-1], "line 5"),
    "a quote behind a backslash": (GOOD + line("4", name='"LANTERN \\"RED\\""').encode(), "line 5"),
    "a character written longer than it is": (GOOD + b"4,71053,\xc0\xaf", "line 5"),
    "a mark twice": (b"\xef\xbb\xbf" * 2 + GOOD, "line 1"),
    "UTF-16 behind UTF-8": (GOOD + line("4").encode("utf-16-le"), "line 6"),
    "UTF-32": (GOOD.decode().encode("utf-32"), "UTF-32"),
    "EBCDIC": (GOOD.decode().encode("cp037"), "line 1"),
    "a column twice": (GOOD.replace(b"StockCode", b"InvoiceNo", 1), "line 1"),
    "columns in another order": (GOOD.replace(b"InvoiceNo,StockCode", b"StockCode,InvoiceNo", 1), "line 1"),
    "a column of another alphabet": (GOOD.replace(b"Country", "\u0421ountry".encode(), 1), "line 1"),
    "lines that end twice": (GOOD.replace(b"\n", b"\r\r\n"), "line 1"),
    "the end of a file of DOS": (GOOD + b"\x1a", "line 5"),
    "a disk that was full": (GOOD + bytes(4096), "line 5"),
    "a cell of a million characters": (GOOD + line("4", name="x" * 1_000_000).encode(), "line 5"),
    "a million columns": (GOOD + b"," * 1_000_000 + b"\n", "line 5"),
    "old Macintosh": (GOOD.replace(b"\n", b"\r"), "line 1"),
    "a carriage return within": (GOOD + line("4", name="LANTERN\rRED").encode(), "line 5"),
    "cut off in a line": (GOOD + line("4").encode()[:20], "line 5"),
    "an endless line": (GOOD + b"x" * (invoice_files.LONGEST_LINE + 1), "line 5"),
    "an endless header": (b"x" * (invoice_files.LONGEST_LINE + 1), "line 1"),
    "a zip archive": (_zip(), "line 1"),
    "a gzip cut off": (PACKED[:-20], "archive is damaged"),
    "a gzip without its end": (PACKED[:-8], "archive is damaged"),
    "a gzip with a wrong checksum": (_flipped(PACKED, len(PACKED) - 6), "archive is damaged"),
    "a gzip with a wrong byte": (_flipped(PACKED, len(PACKED) // 2), ""),
    "a gzip and something else": (PACKED + b"something else", "archive is damaged"),
    "two gzips, the second cut off": (PACKED + PACKED[:-4], "archive is damaged"),
    "a gzip and the first byte of another": (PACKED + PACKED[:1], "archive is damaged"),
    "a gzip of another method": (PACKED[:2] + b"\x07" + PACKED[3:], "archive is damaged"),
    "a gzip with an endless name": (
        PACKED[:3] + b"\x08" + PACKED[4:10] + b"a" * 1_000_000,
        "archive is damaged",
    ),
    "a gzip of a wrong size": (PACKED[:-4] + bytes(4), "archive is damaged"),
    "a gzip of nothing": (gzip.compress(b""), "line 1"),
    "a gzip header alone": (PACKED[:10], "archive is damaged"),
    "a bomb of zeros": (gzip.compress(bytes(32 * 1024 * 1024)), "line 1"),
    "a bomb in a bomb": (gzip.compress(PACKED), "line 1"),
}
"""Files that are refused as a whole, with the expected message."""

WRONG: dict[str, str] = {
    "a price that is nothing": line("2", price="1e-1000100"),
    "a price without end": line("2", price="1e999999999"),
    "a price of many digits": line("2", price="9" * 5000),
    "a price with underscores": line("2", price="1_0"),
    "a price in other digits": line("2", price="٣.٣٩"),
    "no number": line("2", price="NaN"),
    "a decimal comma": line("2", price='"3,39"'),
    "a currency": line("2", price="£3.39"),
    "a price that may be in thousands": line("2", price='"1,234"'),
    "a price of pence that may be in thousands": line("2", price="3.390"),
    "a price in thousands and a decimal comma": line("2", price='"1.234,56"'),
    "a price that begins with a zero and a comma": line("2", price='"0,390"'),
    "a price with a note": line("2", price="3\u00b2"),
    "a price in a circle": line("2", price="\u2462"),
    "a price with its sign behind it": line("2", price="3.39-"),
    "a price in brackets": line("2", price="(3.39)"),
    "a price with a typographic minus": line("2", price="\u22123.39"),
    "a price in hexadecimal": line("2", price="0x10"),
    "a price of a cell": line("2", price="=F2"),
    "a price within less than it can be paid": line("2", price="999999999999.99999999999999e-6"),
    "half a penny": line("2", price="0.005"),
    "a spreadsheet's error": line("2", price="#REF!"),
    "half a piece": line("2", quantity="1.5"),
    "too many pieces": line("2", quantity="1000001"),
    "far too many pieces": line("2", quantity="9" * 5000),
    "pieces in exponents": line("2", quantity="1e400"),
    "pieces that may be in thousands": line("2", quantity='"1,000"'),
    "pieces with three decimals": line("2", quantity="1.000"),
    "pieces with a note": line("2", quantity="12\u00b2"),
    "pieces in a circle": line("2", quantity="\u2464"),
    "pieces of a cell": line("2", quantity="=D2"),
    "a rounded stock code": line("2", sku="7.105E+04"),
    "a stock code that lost a digit": line("2", sku="7105"),
    "a stock code of six digits": line("2", sku="710530"),
    "a stock code with a letter O": line("2", sku="71O53"),
    "a stock code with more behind it": line("2", sku="71053-1"),
    "a stock code with a note": line("2", sku="71053\u00b2"),
    "a stock code in other digits": line("2", sku="\u0667\u0661\u0660\u0665\u0663"),
    "a stock code of a cell": line("2", sku="=B2"),
    "a stock code of a spreadsheet's error": line("2", sku="#N/A"),
    "a stock code that was not there": line("2", sku="nan"),
    "a stock code in quotes": line("2", sku='"""71053"""'),
    "a stock code in hexadecimal": line("2", sku="0x1158D"),
    "NUL": line("2", name="LAN\x00TERN"),
    "an escape": line("2", name="\x1b[31mLANTERN"),
    "a next line": line("2", name="LAN\x85TERN"),
    "a line separator": line("2", name="LAN\u2028TERN"),
    "text from right to left": line("2", name="LAN\u202eTERN"),
    "NUL in a country": line("2", country="Fra\x00nce"),
    "NUL in a customer": line("2", customer="178\x0050"),
    "NUL in a price": line("2", price="3.\x0039"),
    "another customer": line("2", customer="17851"),
    "another country": line("2", country="Germany"),
    "no customer": line("2", customer=""),
    "a country nobody knows": line("2", country="Atlantis"),
    "a field too few": "2,71053,LANTERN,1,2010-12-01 08:26:00,3.39,17850\n",
    "a field too many": line("2", name="LANTERN, RED"),
    "a field that shifts the others": "2,,71053,LANTERN,1,2010-12-01 08:26:00,3.39,17850\n",
    "a merged cell": line(""),
    "an invoice of a spreadsheet's error": line("#REF!"),
    "an invoice that was rounded": line("5.36E+05"),
    "an invoice of a cell": line("=A1"),
    "an invoice that is reckoned": line("=1+1"),
    "an invoice with a note": line("2\u00b9"),
    "an invoice that may be in thousands": line('"536,000"'),
    "an invoice with three decimals": line("536.000"),
    "an invoice in other digits": line("\u0662"),
    "an invoice without end": line("Infinity"),
    "no time as an invoice": line("NaT"),
    "no date": line("2").replace("2010-12-01 08:26:00", ""),
    "a date of a spreadsheet's own": line("2").replace("2010-12-01 08:26:00", "40513.35"),
    "a date as it is written in Britain": line("2").replace("2010-12-01 08:26:00", "01/12/2010 08:26"),
    "a day that is none": line("2").replace("2010-12-01", "2010-02-30"),
    "a leap second": line("2").replace("08:26:00", "08:26:60"),
    "a year that is none": line("2").replace("2010", "99999"),
    "more than a column takes": line("2", sku="71054", quantity="1000000") * 2148,
}
"""Lines that reject their own invoice, 2, and no other."""

SPELLINGS = [
    "536365",
    " 536365 ",
    "536365.0",
    "536365.00",
    "536365.",
    '"=""536365"""',
    "=536365",
    "'536365",
    "\u2019536365",
    "5.36365E+05",
    "5.36365e5",
    "5.363650E+05",
    '"536,365"',
    "536\xa0365",
    "\ufeff536365",
    "\u200b536365",
    "\uff15\uff13\uff16\uff13\uff16\uff15",
    "+536365",
    "0536365",
]
"""One number, in the ways that spreadsheets write it."""
