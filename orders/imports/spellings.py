"""
Short values as spreadsheets write them: `536365.0`, `="536365"`, `'536365` and `5.36365E+05` are one number.

Only unambiguous values are accepted. A rounded number may stand for many; `1.000` is a thousand in Germany and
one in Britain; `=A1` refers to another cell.
"""

from __future__ import annotations

import functools
import re
import unicodedata

LONGEST_INVOICE = 50
LONGEST = 64
"""Longer texts are not short values, and are not parsed."""

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
"""
Controls other than tabs, line separators, lone surrogates, and characters that change the direction of text.
"""
_NOTHING = frozenset(
    "nan nat none null nul n/a na undefined nil true false inf infinity".split()  # noqa: SIM905
)


def meant(text: str) -> str:
    """
    Return the text without a spreadsheet's additions; a whole number as its digits, if none were lost.

    A number that may be a whole one or a thousand times as much is returned unchanged.
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
    """Return the number of an invoice as we store it; empty if it is ambiguous."""
    number = meant(text)
    if number.isdecimal() and number.isascii():
        return (number.lstrip("0") or "0") if len(number) <= LONGEST_INVOICE else ""
    has_other_digits = any(digit.isdigit() and not digit.isascii() for digit in number)  # such as superscripts
    if has_other_digits or is_rounded(number) or is_nothing(number) or not _INVOICE.fullmatch(number):
        return ""
    return number


def is_ambiguous(text: str) -> bool:
    """Return whether this number means thousands in one country and a fraction in another."""
    return len(text) <= LONGEST and bool(_THOUSANDS_OR_FRACTION.fullmatch(_bare(text)))


def is_nothing(text: str) -> bool:
    """Return whether this is a program's notation for a missing value."""
    return text.casefold() in _NOTHING


def is_rounded(text: str) -> bool:
    """Return whether digits of this number may be lost."""
    return bool(_FRACTION.fullmatch(text))


def storable(text: str) -> bool:
    """Return whether the database accepts a text and a page shows it as it is written."""
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
    Return the character in its usual width; empty for invisible ones.

    Other lookalikes stay: a superscript `²` after a number is not a digit of it.
    """
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    if category == "Zs":
        return " "
    is_of_another_width = unicodedata.decomposition(character).startswith(("<wide>", "<narrow>"))
    return unicodedata.normalize("NFKC", character) if is_of_another_width else character


def _expanded(text: str) -> str:
    """The digits of a number with an exponent; empty if it is invalid, or if digits were rounded away."""
    found = _EXPONENT.fullmatch(text)
    if not found:
        return ""
    before, after, exponent = found[1], found[2] or "", int(found[3])
    lost = exponent > len(after) or after[exponent:].strip("0")
    return "" if lost else before + after[:exponent]
