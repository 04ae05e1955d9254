"""
Validates the responses of providers.

Missing fields and fields of the wrong type raise one error that the adapter chooses. Endless lists are
detected.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Iterator

from outbox.database import storable
from outbox.resilience import Transient

UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Errors that Python raises on a malformed response, in our code or in a provider's library."""

MOST_PAGES = 100_000
"""Maximum number of pages of one list."""

CURRENCY = re.compile(r"[A-Za-z]{3}")

LARGEST_AMOUNT = 2**63 - 1
"""The largest amount for the column, in minor units."""


class ListDoesNotEnd(Transient):
    """The pages of a provider's list repeat, or are too many."""


@contextlib.contextmanager
def reading(whose: str, unreadable: type[Exception]) -> Iterator[None]:
    """
    Read a response inside the block.

    Raises:
        unreadable: in place of the errors that Python raises on a malformed response.
    """
    try:
        yield
    except UNREADABLE as error:
        raise unreadable(f"{whose} answer cannot be read: {storable.described(error)}") from error


def identifier(value: object) -> str:
    """
    Return the id of an object of the provider.

    Raises:
        ValueError: if the value is not an id.
    """
    if not (found := storable.identifier(value)):
        raise ValueError("there is no id")
    return found


def amount(value: object) -> int:
    """
    Return an amount of money in minor units.

    Raises:
        ValueError: if the value is not a valid amount.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_AMOUNT:
        raise ValueError("there is no amount")
    return value


def currency(value: object) -> str:
    """
    Return a currency code in upper case.

    Raises:
        ValueError: if the value is not a currency code.
    """
    if not isinstance(value, str) or not CURRENCY.fullmatch(value):
        raise ValueError("there is no currency")
    return value.upper()


def items(value: object) -> list[object]:
    """
    Return a list, which may be empty. A missing list is an error: an empty list means that nothing was done.

    Raises:
        TypeError: if the value is not a list.
    """
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} instead of a list")
    return value


def moment(value: object) -> dt.datetime:
    """
    Return a time, given in seconds since 1970 or as ISO 8601; without a time zone it is UTC.

    Raises:
        ValueError, TypeError, OverflowError: if the value is not a time.
    """
    if isinstance(value, str):
        found = dt.datetime.fromisoformat(value)
        return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} instead of a time")
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=value)


class Pages:
    """Checks the cursors of a paginated list: each cursor may occur once."""

    def __init__(self, whose: str) -> None:
        self._whose = whose
        self._cursors: set[str] = set()

    def continue_after(self, cursor: object) -> str:
        """
        Return the cursor of the next page.

        Raises:
            ListDoesNotEnd: if the cursor is missing or was used before, or if there are too many pages.
        """
        found = storable.identifier(cursor)
        if not found:
            raise ListDoesNotEnd(f"{self._whose} list has another page but no cursor for it")
        if found in self._cursors:
            raise ListDoesNotEnd(f"{self._whose} list repeats itself: it continues after {found} again")
        if len(self._cursors) >= MOST_PAGES:
            raise ListDoesNotEnd(f"{self._whose} list has more than {MOST_PAGES} pages")
        self._cursors.add(found)
        return found
