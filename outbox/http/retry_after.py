"""
Parses `Retry-After` as servers really send it, for all adapters.

RFC 9110 (section 10.2.3) allows seconds and a date. Some servers send seconds since 1970, a time in the past,
or text. An unreadable value is ignored. A wait longer than `LONGEST` is limited to it, which the error's text
mentions.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import re
from collections.abc import Mapping
from typing import Any

LONGEST = dt.timedelta(hours=1)
"""The longest wait that a provider may request. One request an hour is no burden for a provider, and work
continues within an hour of its return. A longer wait is most likely a mistake."""

LONGEST_STATED = dt.timedelta(days=365)
"""Longer waits are described as "more than a year" in texts."""

EPOCH_FROM = 1_000_000_000
"""Numbers from here on are times in seconds since 1970 (this one is in 2001): no server means a wait of 31
years."""

NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)
AFTER_A_VALUE = re.compile(r"(?<=[0-9T])\s*,")
"""A comma between two values: it follows a digit, or the T of GMT. A comma after a weekday does not match."""

LONGEST_TEXT = 200
"""Maximum length of a header, in characters; a date has 29."""


@dataclasses.dataclass(frozen=True)
class RetryAfter:
    """The wait that a provider requests."""

    wait: dt.timedelta | None = None
    """None if the header is missing or unreadable."""
    requested: dt.timedelta | None = None
    """The wait that the provider requested, if it is longer than `wait`."""

    @property
    def remark(self) -> str:
        """A remark for the text of an error; empty unless the wait was limited."""
        if self.requested is None:
            return ""
        requested = str(self.requested) if self.requested < LONGEST_STATED else "more than a year"
        return f" and requested a wait of {requested}, limited to {self.wait}"


def read(headers: Mapping[str, Any] | None, *, now: dt.datetime | None = None) -> RetryAfter:
    """
    Parse the header of a response; header names are case-insensitive.

    A date is compared with the response's own `Date`, so our clock and the provider's may differ; `now` is used
    if it is missing. If the header is repeated, the longest wait counts.
    """
    found = {_text(name).strip().lower(): value for name, value in (headers or {}).items()}
    sent_at = _date("".join(_values(found.get("date"))[:1]))
    now = sent_at or now or dt.datetime.now(dt.UTC)
    waits = [_wait(value, now) for value in _values(found.get("retry-after"))]
    readable = [wait for wait in waits if wait is not None]
    if not readable or len(readable) < len(waits):
        return RetryAfter()
    longest = max(readable)
    if longest > LONGEST:
        return RetryAfter(LONGEST, requested=dt.timedelta(seconds=round(longest.total_seconds())))
    return RetryAfter(longest)


def _values(header: Any) -> list[str]:
    """The values of a header that may be repeated, as a list or joined by commas. Dates contain commas too."""
    lines = header if isinstance(header, list | tuple) else [header]
    texts = [_text(line)[:LONGEST_TEXT] for line in lines if line is not None]
    return [value.strip() for text in texts for value in AFTER_A_VALUE.split(text)]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return "" if value is None else str(value)


def _wait(text: str, now: dt.datetime) -> dt.timedelta | None:
    if NUMBER.fullmatch(text):
        seconds = float(text)
        if seconds >= EPOCH_FROM:
            seconds -= now.timestamp()
        return _span(seconds)
    date = _date(text)
    return max(date - now, dt.timedelta()) if date else None


def _span(seconds: float) -> dt.timedelta:
    """A duration of so many seconds; zero if negative, and at most half of the longest `timedelta`."""
    most = dt.timedelta.max.total_seconds() // 2
    return dt.timedelta(seconds=min(max(seconds, 0.0), most))


def _date(text: str) -> dt.datetime | None:
    """The time of an HTTP date, in any of its three formats; all are in UTC."""
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return moment.replace(tzinfo=moment.tzinfo or dt.UTC).astimezone(dt.UTC)
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError):
        return None
