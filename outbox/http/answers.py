"""
Reading what a provider has answered: whatever is missing, or of another kind than it should be, ends as one
anticipated error, and a list that does not end is not read for ever.

For adapters; which error it is, they say themselves.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Iterator

from outbox.database import storable
from outbox.resilience import Transient

UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What Python raises of an answer that is not what it should be, in our code or in a provider's library."""

MOST_PAGES = 100_000
"""Pages of one list that are read."""

CURRENCY = re.compile(r"[A-Za-z]{3}")

LARGEST_AMOUNT = 2**63 - 1
"""What a column takes, in minor units."""


class ListDoesNotEnd(Transient):
    """A provider's list leads in a circle, or goes on and on."""


@contextlib.contextmanager
def reading(whose: str, unreadable: type[Exception]) -> Iterator[None]:
    """
    Read an answer inside the block.

    Raises:
        unreadable: in place of what Python raises of an answer that is not what it should be.
    """
    try:
        yield
    except UNREADABLE as error:
        raise unreadable(f"{whose} answer cannot be read: {storable.described(error)}") from error


def identifier(value: object) -> str:
    """
    The id of something that the provider has done.

    Raises:
        ValueError: if it is none.
    """
    if not (found := storable.identifier(value)):
        raise ValueError("there is no id")
    return found


def amount(value: object) -> int:
    """
    An amount of money in whole units.

    Raises:
        ValueError: if it is none that could be one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_AMOUNT:
        raise ValueError("there is no amount")
    return value


def currency(value: object) -> str:
    """
    A currency's code, in capitals.

    Raises:
        ValueError: if it is none that could be one.
    """
    if not isinstance(value, str) or not CURRENCY.fullmatch(value):
        raise ValueError("there is no currency")
    return value.upper()


def items(value: object) -> list[object]:
    """
    A list, which may be empty. Nothing at all is no empty list: it would mean that nothing was done.

    Raises:
        TypeError: if it is none.
    """
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} in place of a list")
    return value


def moment(value: object) -> dt.datetime:
    """
    A time, from seconds since 1970 or as a text of ISO 8601; without a zone it is in UTC.

    Raises:
        ValueError, TypeError, OverflowError: if it is none.
    """
    if isinstance(value, str):
        found = dt.datetime.fromisoformat(value)
        return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} in place of a time")
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=value)


class Pages:
    """The pages of one list: each place in it is gone on from once."""

    def __init__(self, whose: str) -> None:
        self._whose = whose
        self._places: set[str] = set()

    def go_on_from(self, place: object) -> str:
        """
        The place that the next page begins at.

        Raises:
            ListDoesNotEnd: if it is none, or one that was gone on from before, or if these are too many.
        """
        found = storable.identifier(place)
        if not found:
            raise ListDoesNotEnd(f"{self._whose} list has another page, and does not say where it begins")
        if found in self._places:
            raise ListDoesNotEnd(f"{self._whose} list leads in a circle: it goes on after {found} again")
        if len(self._places) >= MOST_PAGES:
            raise ListDoesNotEnd(f"{self._whose} list has more than {MOST_PAGES} pages")
        self._places.add(found)
        return found
