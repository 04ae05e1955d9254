"""
Bodies: how they are framed, encoded and written down, before anything in them is validated.

What two readers could understand in two ways is refused: a member that an object names twice, a number that
JSON does not have, an encoding or character set that is not read here. A body is read once, up to a limit.
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
"""What may be named: JSON is UTF-8 (RFC 8259, section 8.1), and ASCII is part of it."""

LONGEST_NUMBER = 40
"""Digits of a number that is read exactly. No field takes a longer one; as a float it is too large for all."""


class StrictJson(Parser):
    """Ninja's parser of bodies, for JSON that says one thing only."""

    def parse_body(self, request: HttpRequest) -> Any:
        """
        Raises:
            Problem: if the body is no JSON, or can be understood in two ways.
        """
        return parse(request.body)


def refuse_unreadable(request: HttpRequest) -> None:
    """
    For operations that need no body: one that comes is JSON all the same.

    Raises:
        Problem: if it is not.
    """
    if request.body:
        parse(request.body)


def check(request: HttpRequest) -> None:
    """
    Let only bodies through that are small enough and in a form that is read here; read a chunked one.

    Raises:
        Problem: saying what is wrong with the body.
    """
    is_chunked = "HTTP_TRANSFER_ENCODING" in request.META
    length = _read_chunks(request) if is_chunked else _length(request)
    if length > LARGEST_BODY:
        raise Problem("body-too-large")
    if length:
        _check_form(request)


def parse(body: bytes) -> Any:
    """
    The JSON value that a body is.

    Raises:
        Problem: if it is no JSON, or can be understood in two ways.
    """
    try:
        # A byte order mark says nothing about UTF-8, and may be ignored.
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
        raise Problem("malformed-request", "Content-Length is no number")
    return int(length) if len(length) < LONGEST_NUMBER else LARGEST_BODY + 1


def _read_chunks(request: HttpRequest) -> int:
    """
    Read a body that comes in chunks, and let Django have it: Django reads as much as Content-Length says, which
    is nothing. A server that does not take the chunks apart, or cannot say where they end, makes this unsafe.
    """
    if request.META.get("CONTENT_LENGTH"):
        raise Problem("malformed-request", "a body has a Content-Length or comes in chunks, not both")
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
            "Content-Encoding is not understood",
            headers={"Accept-Encoding": "identity"},
        )
    if request.content_type != JSON:
        raise Problem("unsupported-media-type")
    charset = (request.content_params or {}).get("charset", "utf-8")
    if charset.lower() not in CHARSETS:
        raise Problem("unsupported-media-type", "JSON is encoded in UTF-8")


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose members have different names: of two values nobody can say which one is meant."""
    found = dict(members)
    if len(found) < len(members):
        raise Problem("malformed-request", "an object of the body names a member twice")
    return found


def _no_number(name: str) -> float:
    """NaN and Infinity, which Python writes and JSON does not have."""
    raise Problem("malformed-request", "a number of the body is none that JSON has")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_NUMBER else math.copysign(math.inf, -1 if "-" in digits else 1)


def _fraction(text: str) -> float:
    """A number with a point or an exponent. One that only rounding makes whole is no whole number."""
    value = float(text)
    return math.nan if value.is_integer() and not _is_exactly(value, text) else value


def _is_exactly(value: float, text: str) -> bool:
    try:
        return decimal.Decimal(text) == value
    except decimal.InvalidOperation:  # an exponent beyond those that decimals have
        return False
