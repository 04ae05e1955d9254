"""
What spreadsheets make of short values: `536365.0`, `="536365"`, `'536365` and `5.36365E+05` are one number.

Only what can be read in one way is read. A number that was rounded stands for many, and for none; `1.000` is a
thousand in Germany and one in Britain; `=A1` is the value of a cell that is not here.
"""

from __future__ import annotations

import functools
import re
import unicodedata

LONGEST_INVOICE = 50
LONGEST = 64
"""Longer texts are no short values, and are not looked into."""

_FORMULA = re.compile(r'=(?:"([^"]*)"|([+-]?[\d.,]+(?:[eE][+-]?\d+)?))', re.ASCII)
_QUOTED = re.compile(r"['\u2018\u2019`\u00b4](.*?)['\u2018\u2019`\u00b4]?")
_WHOLE = re.compile(r"\+?(\d+)(?:\.0*)?", re.ASCII)
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:([, ])\d{3})(?:\1\d{3})*", re.ASCII)
_THOUSANDS_OR_FRACTION = re.compile(r"\+?[1-9]\d{0,2}[.,]\d{3}", re.ASCII)
_EXPONENT = re.compile(r"\+?(\d{1,20})(?:\.(\d{0,20}))?[eE]\+?(\d{1,3})", re.ASCII)
_FRACTION = re.compile(r"[+-]?(\d+[.,])+\d+([eE][+-]?\d+)?|[+-]?\d+[eE][+-]?\d+", re.ASCII)
_INVOICE = re.compile(r"(?:#(?=\d))?\w(?:[\w ./#:-]{0,48}\w)?")
_IMPOSSIBLE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""Controls other than tabs, separators of lines, halves of characters, and what turns the direction of text."""
_NOTHING = frozenset(
    "nan nat none null nul n/a na undefined nil true false inf infinity".split()  # noqa: SIM905
)


def meant(text: str) -> str:
    """
    The text without what a spreadsheet put around it; a whole number as its digits, if none were lost.

    A number that may be a whole one or a thousand times as much is left as it is.
    """
    return _meant(text) if len(text) <= LONGEST else text.strip()


@functools.lru_cache(maxsize=1024)
def _meant(text: str) -> str:
    text = _bare(text)
    if text.endswith("000") and _THOUSANDS_OR_FRACTION.fullmatch(text):
        return text
    if whole := _WHOLE.fullmatch(text):
        return whole[1]
    if _GROUPED.fullmatch(text):
        return re.sub("[, ]", "", text)
    return _expanded(text) or text


def invoice_number(text: str) -> str:
    """The number of an invoice as we keep it; empty if it cannot be told which one is meant."""
    number = meant(text)
    if number.isdecimal() and number.isascii():
        return (number.lstrip("0") or "0") if len(number) <= LONGEST_INVOICE else ""
    has_other_digits = any(digit.isdigit() and not digit.isascii() for digit in number)  # such as a note's
    if has_other_digits or is_rounded(number) or is_nothing(number) or not _INVOICE.fullmatch(number):
        return ""
    return number


def is_ambiguous(text: str) -> bool:
    """Whether this is a number that one country reads as thousands, and another as a fraction."""
    return len(text) <= LONGEST and bool(_THOUSANDS_OR_FRACTION.fullmatch(_bare(text)))


def is_nothing(text: str) -> bool:
    """Whether this is how programs write that there is no value."""
    return text.casefold() in _NOTHING


def is_rounded(text: str) -> bool:
    """Whether this is a number of which digits may be lost."""
    return bool(_FRACTION.fullmatch(text))


def storable(text: str) -> bool:
    """Whether a text is one that the database takes and a page shows as it is written."""
    return not _IMPOSSIBLE.search(text)


def _bare(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFC", "".join(map(_plain, text)))
    text = text.strip()
    if formula := _FORMULA.fullmatch(text):
        text = (formula[1] or formula[2] or "").strip()
    if quoted := _QUOTED.fullmatch(text):
        text = quoted[1].strip()
    return text


def _plain(character: str) -> str:
    """
    The character in its usual width; nothing for what nobody sees.

    Others that look alike stay: a small `²` behind a number is no digit of it.
    """
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    if category == "Zs":
        return " "
    is_of_another_width = unicodedata.decomposition(character).startswith(("<wide>", "<narrow>"))
    return unicodedata.normalize("NFKC", character) if is_of_another_width else character


def _expanded(text: str) -> str:
    """The digits of a number with an exponent; empty if it is none, or if digits were rounded away."""
    found = _EXPONENT.fullmatch(text)
    if not found:
        return ""
    before, after, exponent = found[1], found[2] or "", int(found[3])
    lost = exponent > len(after) or after[exponent:].strip("0")
    return "" if lost else before + after[:exponent]
