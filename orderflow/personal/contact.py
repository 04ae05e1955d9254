"""One customer's contact data, and its removal from texts and JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

ERASED = "[erased]"

FIELDS = ("customer_name", "customer_email", "customer_phone", "customer_push_token")
"""Fields of an order and of its events that contain contact data."""

SHORTEST = 6
"""Minimum length of a value that is searched for inside texts; a shorter one may be an ordinary word."""

SHORTEST_NAME = 3

NATIONAL = 9
"""The number of last digits that identify a telephone number."""

_KEYS = re.compile(
    r"(?i)(?:customer|recipient|contact|full|first|last|given|family)_?name$|^name$"
    r"|e_?mail|phone|push_?token|recipient$|^to$|address|street|postcode|postal"
)
"""Keys of JSON whose values are contact data, whatever they look like."""


@dataclasses.dataclass(frozen=True)
class Contact:
    """The contact data of one customer: names, and values that identify the customer."""

    names: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    @classmethod
    def of(cls, known: Iterable[Mapping[str, Any]]) -> Contact:
        """Create it from the `FIELDS` of orders and of events."""
        rows = list(known)
        return cls(
            names=_texts(row.get(FIELDS[0]) for row in rows),
            others=_texts(row.get(field) for row in rows for field in FIELDS[1:]),
        )

    def __bool__(self) -> bool:
        return bool(self.names or self.others)

    def without(self, text: str, *, with_names: bool = True, by: str = ERASED) -> str:
        """
        Return the text without this customer's data, whether plain, percent-encoded or escaped as in JSON.
        """
        return self.pattern(with_names=with_names).sub(lambda _: by, text) if self else text

    def pattern(self, *, with_names: bool) -> re.Pattern[str]:
        """The pattern that `without` replaces."""
        found = [_spelled(value) for value in self.others if len(value) >= SHORTEST]
        if with_names:
            found += [rf"\b{_spelled(name)}\b" for name in self.names if len(name) >= SHORTEST_NAME]
        return re.compile("|".join(sorted(found, key=len, reverse=True)) or r"(?!)", re.IGNORECASE)

    def without_in(self, value: Any, *, by: str = ERASED) -> Any:
        """Return JSON without this customer's data, and without all values of keys for contact data."""
        if isinstance(value, str):
            return by if value in self.names else self.without(value, by=by, with_names=" " in value)
        if isinstance(value, Mapping):
            return {
                self.without(str(key), with_names=False, by=by): _nothing_of(item, by)
                if _KEYS.search(str(key))
                else self.without_in(item, by=by)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.without_in(item, by=by) for item in value]
        return value


def _nothing_of(value: Any, by: str) -> Any:
    """The value of a key for contact data, reduced to its structure."""
    if isinstance(value, Mapping):
        return {key: _nothing_of(item, by) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nothing_of(item, by) for item in value]
    return by if value not in ("", None) else value


def _texts(values: Iterable[Any]) -> frozenset[str]:
    return frozenset(
        value.strip() for value in values if isinstance(value, str) and value.strip() and value != ERASED
    )


def _spelled(value: str) -> str:
    """A pattern for the value in every notation in which it may have been written."""
    spellings = {
        value,
        quote(value, safe=""),
        quote(value, safe="@+"),
        json.dumps(value)[1:-1],
        repr(value)[1:-1],
    }
    patterns = [re.escape(spelling) for spelling in sorted(spellings)]
    if re.fullmatch(r"\+?\d{7,}", value):  # a number may be written with spaces, and in its national format
        gap = r"[\s().-]{0,2}"
        digits = value.lstrip("+")
        patterns.append(r"(?:\+|%2b)?" + gap.join(digits))
        if len(digits) > NATIONAL:
            patterns.append(rf"(?<!\d)\d{{0,4}}{gap}{gap.join(digits[-NATIONAL:])}(?!\d)")
    return f"(?:{'|'.join(patterns)})"
