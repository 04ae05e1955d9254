"""
Making whatever comes from outside fit for the database: texts, ids, JSON, errors and their tracebacks.

PostgreSQL takes no NUL characters and no lone surrogates, JSON has no NaN, and Python writes no numbers of
thousands of digits. What cannot be kept as it is, is kept as a text that says what it was: nothing here raises.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import traceback as tracebacks
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST_TEXT = 64 * 1024
"""Characters of a text that are kept; a runaway repr must not fill the table."""

LONGEST_NOTE = 1000
"""Characters of what somebody outside says about their work, where a sentence is expected."""

LONGEST_ID = 255
"""Characters of an id of somebody else's: Stripe's longest, and what our columns take."""

DIGEST = 32
"""Characters of the digest in which a longer id ends, so that two of them stay two."""

DEEPEST = 50
"""Levels of a JSON value that are kept."""

MOST_VALUES = 10_000
"""Values within a JSON value that are kept, and `LONGEST_JSON` characters of texts."""

LONGEST_JSON = 4 * LONGEST_TEXT

LARGEST_NUMBER = 10**1000
"""What is beyond that is kept as a text. Python writes no more than 4300 digits."""

CUT = "…"


def text(value: object, *, longest: int = LONGEST_TEXT) -> str:
    """The value as a text that can be stored, cut at the end; nothing for None."""
    whole = _plain("" if value is None else value)
    return whole if len(whole) <= longest else whole[: longest - len(CUT)] + CUT


def note(value: object) -> str:
    """What somebody outside says about their work: a sentence or so."""
    return text(value, longest=LONGEST_NOTE)


def identifier(value: object) -> str:
    """An id of somebody else's, a text or a whole number; empty if it is neither. Long ones stay distinct."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    whole = _plain(value)
    if len(whole) <= LONGEST_ID:
        return whole
    return whole[: LONGEST_ID - DIGEST] + hashlib.sha256(whole.encode()).hexdigest()[:DIGEST]


def error(failure: BaseException, *, longest: int = LONGEST_TEXT) -> str:
    """What an exception says; its class and arguments if it says nothing."""
    return text(failure, longest=longest) or _represented(failure, longest)


def described(failure: BaseException, *, longest: int = LONGEST_TEXT) -> str:
    """An exception with its class."""
    return text(f"{type(failure).__name__}: {text(failure)}", longest=longest)


def traceback(failure: BaseException) -> str:
    """The traceback of an exception and of those that led to it."""
    try:
        whole = "".join(tracebacks.format_exception(failure))
    except Exception as unprintable:
        whole = f"{type(failure).__name__}, whose traceback cannot be written: {type(unprintable).__name__}"
    return ending(whole)


def ending(value: object) -> str:
    """The value as a text that can be stored, cut at its beginning: tracebacks say the most at their end."""
    whole = _plain(value)
    return whole if len(whole) <= LONGEST_TEXT else CUT + whole[len(CUT) - LONGEST_TEXT :]


def json(value: object) -> Any:
    """The value as JSON that can be stored. A mark stands in the place of what is too deep or too much."""
    return _Keeping().kept(value, DEEPEST)


def is_text(value: str) -> bool:
    """Whether a text can be stored just as it is, however long."""
    return value == _plain(value)


def is_storable(value: object) -> bool:
    """Whether a JSON value can be stored just as it is."""
    try:
        return bool(json(value) == value)
    except (RecursionError, ValueError, TypeError):
        return False


class _Keeping:
    """How much of one JSON value has been kept."""

    def __init__(self) -> None:
        self._values, self._characters = MOST_VALUES, LONGEST_JSON

    def kept(self, value: object, levels: int) -> Any:
        self._values -= 1
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and -LARGEST_NUMBER < value < LARGEST_NUMBER:
            return int(value)
        if isinstance(value, float) and math.isfinite(value):
            return float(value)
        if isinstance(value, Mapping | list | tuple | set | frozenset) and (levels == 0 or self._is_full):
            return CUT
        if isinstance(value, Mapping):
            return {self._text(key): self.kept(item, levels - 1) for key, item in self._some(value.items())}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.kept(item, levels - 1) for item in self._some(value)]
        return self._text(_represented(value, LONGEST_TEXT))

    @property
    def _is_full(self) -> bool:
        return self._values <= 0 or self._characters <= 0

    def _some(self, items: Iterable[Any]) -> Iterable[Any]:
        return itertools.takewhile(lambda _: not self._is_full, items)

    def _text(self, value: object) -> str:
        kept = text(value, longest=max(len(CUT), min(LONGEST_TEXT, self._characters)))
        self._characters -= len(kept)
        return kept


def _plain(value: object) -> str:
    """The value as a text in which each character can be stored."""
    if not isinstance(value, str):
        value = _as_text(value)
    if value.isascii() and "\x00" not in value:  # nearly always
        return value
    return value.replace("\x00", "\\x00").encode(errors="backslashreplace").decode()


def _as_text(value: object) -> str:
    try:
        return str(value)
    except Exception as unprintable:  # a number of thousands of digits, or a `__str__` that fails
        return f"[{type(value).__name__} that cannot be written: {type(unprintable).__name__}]"


def _represented(value: object, longest: int) -> str:
    try:
        return text(repr(value), longest=longest)
    except Exception:
        return text(value, longest=longest)
