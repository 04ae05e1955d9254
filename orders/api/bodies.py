"""
Request bodies: framing, encoding and JSON syntax, before their content is validated.

Ambiguous bodies are refused: an object with a duplicate name, a number that is not valid JSON, an unsupported
encoding or character set. A body is read once, up to a limit.
"""

from __future__ import annotations

import decimal
import io
import json
import math
from typing import Any, cast

from django.http import HttpRequest
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from ninja.parser import Parser

from orders.api.problems import Problem

LARGEST_BODY = 64 * 1024
JSON = "application/json"
CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
"""The accepted charsets: JSON is UTF-8 (RFC 8259, section 8.1), and ASCII is a subset of it."""

LONGEST_NUMBER = 40
"""
Maximum digits of a number that is parsed exactly. No field accepts a longer one; as a float it is too large.
"""


class StrictJson(Parser):
    """Ninja's parser of bodies, for unambiguous JSON."""

    def parse_body(self, request: HttpRequest) -> Any:
        """
        Raises:
            Problem: if the body is not JSON, or is ambiguous.
        """
        return parse(request.body)


def refuse_unreadable(request: HttpRequest) -> None:
    """
    Check the body of an operation that needs none: if there is one, it must be valid JSON.

    Raises:
        Problem: if it is not.
    """
    if request.body:
        parse(request.body)


def check(request: HttpRequest) -> None:
    """
    Check size and media type of a body, and read a chunked one.

    Raises:
        Problem: with what is wrong with the body.
    """
    is_chunked = "HTTP_TRANSFER_ENCODING" in request.META
    length = _read_chunks(request) if is_chunked else _length(request)
    if length > LARGEST_BODY:
        raise Problem("body-too-large")
    if length:
        _check_form(request)


def parse(body: bytes) -> Any:
    """
    Parse a body as JSON.

    Raises:
        Problem: if it is not JSON, or is ambiguous.
    """
    try:
        # A byte order mark is meaningless in UTF-8, and may be ignored.
        text = body.decode("utf-8-sig")
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_int=_integer,
            parse_float=_fraction,
        )
    except (ValueError, RecursionError) as unreadable:
        raise Problem("malformed-request") from unreadable


def _length(request: HttpRequest) -> int:
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        raise Problem("malformed-request", "Content-Length is not a number")
    return int(length) if len(length) < LONGEST_NUMBER else LARGEST_BODY + 1


def _read_chunks(request: HttpRequest) -> int:
    """
    Read a chunked body and pass it to Django, which reads only Content-Length bytes, that is none. This is
    unsafe with a server that does not decode the chunks, or does not report their end.
    """
    if request.META.get("CONTENT_LENGTH"):
        raise Problem("malformed-request", "a body has either a Content-Length or chunks, not both")
    if request.META["HTTP_TRANSFER_ENCODING"].strip().lower() != "chunked":
        raise Problem("unsupported-transfer-coding")
    if not request.META.get("wsgi.input_terminated"):
        raise Problem("length-required")
    try:
        body = request.META["wsgi.input"].read(LARGEST_BODY + 1)
    except (ParseException, OSError) as broken:
        raise Problem("malformed-request", "the chunks of the body cannot be read") from broken
    cast(Any, request)._stream = io.BytesIO(body)
    return len(body)


def _check_form(request: HttpRequest) -> None:
    encodings = {name.strip().lower() for name in request.headers.get("Content-Encoding", "").split(",")}
    if encodings - {"", "identity"}:
        raise Problem(
            "unsupported-media-type",
            "Content-Encoding is not supported",
            headers={"Accept-Encoding": "identity"},
        )
    if request.content_type != JSON:
        raise Problem("unsupported-media-type")
    charset = (request.content_params or {}).get("charset", "utf-8")
    if charset.lower() not in CHARSETS:
        raise Problem("unsupported-media-type", "JSON must be encoded in UTF-8")


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without duplicate names: of two values it is unknown which one is meant."""
    found = dict(members)
    if len(found) < len(members):
        raise Problem("malformed-request", "an object in the body has a duplicate name")
    return found


def _no_number(name: str) -> float:
    """Refuse NaN and Infinity, which Python's parser accepts but JSON does not have."""
    raise Problem("malformed-request", "a number in the body is not valid JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_NUMBER else math.copysign(math.inf, -1 if "-" in digits else 1)


def _fraction(text: str) -> float:
    """A number with a fraction or exponent. A number that only rounding makes whole is not a whole number."""
    value = float(text)
    return math.nan if value.is_integer() and not _is_exactly(value, text) else value


def _is_exactly(value: float, text: str) -> bool:
    try:
        return decimal.Decimal(text) == value
    except decimal.InvalidOperation:  # an exponent out of range
        return False
