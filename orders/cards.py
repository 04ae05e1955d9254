"""
Detection of card numbers in text from people: we must never store any, so such texts are refused.

References with several numbers, such as `48536-014439-12`, are not cards, which are grouped differently. One in
ten long numbers looks like a card number and is refused: its sender notices and sends another one, while a
stored card number could be read by anybody.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

SHORTEST, LONGEST = 13, 19
MOST_BETWEEN = 3
"""Separators between two groups of one number."""

AMEX_AND_DINERS = ([4, 6, 5], [4, 6, 4])
"""The sizes of the groups on these cards."""

_IDS = re.compile(
    r"(?<![0-9a-z])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[0-9]*[a-f])[0-9a-f]{32,1000})(?![0-9a-z])",
    re.IGNORECASE | re.ASCII,
)
"""UUIDs, digests and tokens in hexadecimal: some of them contain as many digits in a row."""

_TIME = re.compile(
    r"1[5-9]\d{11}(?:\d{3}){0,2}"  # milli-, micro- or nanoseconds since 1970, until 2033
    r"|20[0-4]\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{5,11}",  # a date and a number: no card starts so
    re.ASCII,
)
_PHONE = re.compile(r"\+?3[47]\d{13}|\+?3(?:0[0-5]|[689]\d)\d{11}", re.ASCII)
"""American Express and Diners Club, which are longer than any phone number of the countries +30 to +39."""

_SEPARATORS = frozenset("._,/|*+'\u00b7\t\n\r")
_SEPARATING = frozenset({"Zs", "Pd"})
INVISIBLE = "Cf"


def are_in(text: str) -> bool:
    """Return whether there are 13 to 19 digits, in any script, grouped or not, with a valid check digit."""
    if sum(map(str.isdigit, text)) < SHORTEST:
        return False
    text = _IDS.sub("x", text.replace("%20", " "))
    return any(_is_card(number) for groups in _grouped(text) for number in _numbers(groups))


def is_phone(text: str) -> bool:
    """Return whether a phone number in international format can only be a card number."""
    return bool(_PHONE.fullmatch(text)) and _has_check_digit(text.lstrip("+"))


def _grouped(text: str) -> Iterator[list[str]]:
    """The groups of digits with nothing but separators between them."""
    groups: list[str] = []
    between = MOST_BETWEEN + 1
    for character in text:
        digit = unicodedata.digit(character, None)
        if digit is not None:
            if between == 0:
                groups[-1] += str(digit)
            elif between <= MOST_BETWEEN:
                groups.append(str(digit))
            else:
                if groups:
                    yield groups
                groups = [str(digit)]
            between = 0
        elif (category := unicodedata.category(character)) == INVISIBLE:
            continue  # invisible between two digits
        elif character in _SEPARATORS or category in _SEPARATING:
            between += 1
        else:
            between = MOST_BETWEEN + 1
    if groups:
        yield groups


def _numbers(groups: Sequence[str]) -> Iterator[str]:
    """Adjacent groups as one number, if its length and grouping are those of a card."""
    for first in range(len(groups)):
        number, sizes = "", []
        for group in groups[first:]:
            number += group
            sizes.append(len(group))
            if len(number) > LONGEST:
                break
            if len(number) >= SHORTEST and _is_divided_as_cards_are(sizes):
                yield number


def _is_divided_as_cards_are(sizes: Sequence[int]) -> bool:
    """Groups of one size, except for a shorter last one, or those of American Express and Diners Club."""
    whole = sizes[0]
    return sizes in AMEX_AND_DINERS or (sizes[-1] <= whole and all(size == whole for size in sizes[:-1]))


def _is_card(number: str) -> bool:
    return number[0] != "0" and not _TIME.fullmatch(number) and _has_check_digit(number)


def _has_check_digit(number: str) -> bool:
    digits = [int(digit) for digit in reversed(number)]
    return sum(digits[::2] + [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]) % 10 == 0
