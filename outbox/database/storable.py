"""
Makes values from outside storable in the database: texts, ids, JSON, errors and tracebacks.

PostgreSQL accepts no NUL characters and no lone surrogates, JSON has no NaN, and Python does not print numbers
of thousands of digits. A value that cannot be stored unchanged is stored as a text that describes it. Nothing
here raises.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import traceback as tracebacks
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST_TEXT = 64 * 1024
"""Maximum length of a text, in characters; a runaway repr must not fill the table."""

LONGEST_NOTE = 1000
"""Maximum length, in characters, of a text from outside where a sentence is expected."""

LONGEST_ID = 255
"""Maximum length of a foreign id, in characters: Stripe's longest, and the size of our columns."""

DIGEST = 32
"""Characters of the digest at the end of a shortened id, which keeps it unique."""

DEEPEST = 50
"""Levels of a JSON value that are kept."""

MOST_VALUES = 10_000
"""Values within a JSON value that are kept, with at most `LONGEST_JSON` characters of texts."""

LONGEST_JSON = 4 * LONGEST_TEXT

LARGEST_NUMBER = 10**1000
"""Larger numbers are kept as texts. Python prints at most 4300 digits."""

CUT = "…"


def text(value: object, *, longest: int = LONGEST_TEXT) -> str:
    """Return the value as a storable text, truncated at the end; an empty text for None."""
    whole = _plain("" if value is None else value)
    return whole if len(whole) <= longest else whole[: longest - len(CUT)] + CUT


def note(value: object) -> str:
    """Return a text from outside, such as an error message, truncated to about a sentence."""
    return text(value, longest=LONGEST_NOTE)


def identifier(value: object) -> str:
    """Return a foreign id, a text or an integer; empty if it is neither. Long ids stay distinct."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    whole = _plain(value)
    if len(whole) <= LONGEST_ID:
        return whole
    return whole[: LONGEST_ID - DIGEST] + hashlib.sha256(whole.encode()).hexdigest()[:DIGEST]


def error(failure: BaseException, *, longest: int = LONGEST_TEXT) -> str:
    """Return the text of an exception; its class and arguments if it has no text."""
    return text(failure, longest=longest) or _represented(failure, longest)


def described(failure: BaseException, *, longest: int = LONGEST_TEXT) -> str:
    """Return the class and the text of an exception."""
    return text(f"{type(failure).__name__}: {text(failure)}", longest=longest)


def traceback(failure: BaseException) -> str:
    """Return the traceback of an exception and of its causes."""
    try:
        whole = "".join(tracebacks.format_exception(failure))
    except Exception as unprintable:
        whole = f"{type(failure).__name__}, whose traceback cannot be printed: {type(unprintable).__name__}"
    return ending(whole)


def ending(value: object) -> str:
    """Return the value as a storable text, truncated at its beginning: tracebacks matter most at the end."""
    whole = _plain(value)
    return whole if len(whole) <= LONGEST_TEXT else CUT + whole[len(CUT) - LONGEST_TEXT :]


def json(value: object) -> Any:
    """Return the value as storable JSON. A mark replaces values that are too deep or too many."""
    return _Keeping().kept(value, DEEPEST)


def is_text(value: str) -> bool:
    """Return whether a text can be stored unchanged, whatever its length."""
    return value == _plain(value)


def is_storable(value: object) -> bool:
    """Return whether a JSON value can be stored unchanged."""
    try:
        return bool(json(value) == value)
    except (RecursionError, ValueError, TypeError):
        return False


class _Keeping:
    """Counts how much of one JSON value has been kept."""

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
        return f"[{type(value).__name__} that cannot be printed: {type(unprintable).__name__}]"


def _represented(value: object, longest: int) -> str:
    try:
        return text(repr(value), longest=longest)
    except Exception:
        return text(value, longest=longest)
