"""
A file of invoices as fields, line by line, in bounded memory; a file with a damaged structure is refused.

One line is one record: a quoted text that continues on the next line is a stray quote, and would swallow other
invoices. The content of the fields is validated in `invoices`.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

LARGEST_FILE = 256 * 1024 * 1024
"""Bytes, unpacked: five times the data that the retailer published for a year."""
MOST_LINES = 2_000_000
LONGEST_LINE = 64 * 1024
UNFOLDS, HARMLESS = 100, 16 * 1024 * 1024
"""
An archive that expands by more than this factor, and to more than this many bytes, is not a file of invoices.
"""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
GZIP = b"\x1f\x8b"


class UnreadableFile(Exception):
    """The file as a whole cannot be imported; the message names the line, the reason, and what is expected."""


class _Damaged(Exception):
    """The error in a line."""


def records(path: Path, columns: list[str]) -> Iterator[list[str]]:
    """
    Yield the fields of every line after the first one, which must name the columns.

    Raises:
        UnreadableFile: if the file, or its archive, is damaged.
    """
    number = 0
    try:
        with path.open("rb") as file, _unpacked(path, file) as stream:
            _check_header(_fields(_first_line(stream)), columns)
            limit = _most_bytes(path, stream)
            size = 0
            for number in itertools.count(1):
                raw = stream.readline(LONGEST_LINE + 1)
                size += len(raw)
                if not raw:
                    return
                if number > MOST_LINES or size > limit:
                    raise _Damaged(_too_large(limit))
                yield _record(_decoded(raw), len(columns))
    except (_Damaged, EOFError, zlib.error, gzip.BadGzipFile) as error:
        where = f"line {number + 1}, after {max(0, number - 1)} lines of invoices"
        raise UnreadableFile(f"{where}: {_why(error)}") from error
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error


def _unpacked(path: Path, file: IO[bytes]) -> IO[bytes]:
    """An archive is recognised by its first bytes, whatever its name."""
    packed = file.peek(2)[:2] == GZIP if hasattr(file, "peek") else False
    return cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed or path.suffix == ".gz" else file


def _most_bytes(path: Path, stream: IO[bytes]) -> int:
    if isinstance(stream, gzip.GzipFile) and path.is_file():
        return min(LARGEST_FILE, max(HARMLESS, UNFOLDS * path.stat().st_size))
    return LARGEST_FILE


def _too_large(limit: int) -> str:
    return f"the file is too large: at most {MOST_LINES} lines, and here {limit} bytes when unpacked"


def _first_line(stream: IO[bytes]) -> str:
    raw = stream.readline(LONGEST_LINE + 1)
    if raw.startswith(OTHER_ENCODINGS):
        raise _Damaged("this is UTF-16 or UTF-32; save it as CSV in UTF-8")
    return _decoded(raw.removeprefix(BYTE_ORDER_MARK))


def _decoded(raw: bytes) -> str:
    if len(raw) > LONGEST_LINE:
        raise _Damaged(f"this line is longer than {LONGEST_LINE} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Damaged(f"byte {error.start + 1} is not UTF-8; save the file as CSV in UTF-8") from error


def _record(line: str, columns: int) -> list[str]:
    fields = _fields(line)
    if not line.endswith("\n") and line.strip() and len(fields) != columns:
        raise _Damaged("the file ends in the middle of this line")
    return fields


def _fields(line: str) -> list[str]:
    text = line.removesuffix("\n").removesuffix("\r")
    if "\r" in text:
        raise _Damaged("there is a carriage return within the line; lines end with LF or CR LF")
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise _Damaged(f"the quotes of this line do not match ({error})") from error


def _check_header(header: list[str], columns: list[str]) -> None:
    if header != columns:
        said = ascii(",".join(header)[:200])
        raise _Damaged(f"the first line must be {','.join(columns)}, it is {said}")


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, _Damaged) else f"the archive is damaged: {error}"
