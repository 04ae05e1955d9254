"""
`Retry-After`, as servers really send it: the one reader of it for all adapters.

RFC 9110 (section 10.2.3) allows seconds and a date. Some servers send the seconds since 1970, or a moment in
the past, or text. What cannot be read counts as not said; what is longer than `LONGEST` is cut, and the cut
is stated in the error's text.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import re
from collections.abc import Mapping
from typing import Any

LONGEST = dt.timedelta(hours=1)
"""The longest wait that a provider may impose. Asked once an hour, a provider is not burdened, and work goes
on within an hour of its return; whoever asks for more has most probably made a mistake."""

LONGEST_TOLD = dt.timedelta(days=365)
"""A longer wait is stated as such: millions of days in a text hide the wait that is kept."""

EPOCH_FROM = 1_000_000_000
"""From here on a number is a moment, in seconds since 1970 (this one was in 2001): nobody means 31 years."""

NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)
AFTER_A_VALUE = re.compile(r"(?<=[0-9T])\s*,")
"""A comma between two values ends a number, or a date, whose last letter is that of GMT; that of a weekday
does not."""

LONGEST_TEXT = 200
"""Characters of a header that are looked at; a date has 29."""


@dataclasses.dataclass(frozen=True)
class RetryAfter:
    """How long a provider wants to be left alone."""

    wait: dt.timedelta | None = None
    """None: it did not say, or nothing that can be read."""
    asked: dt.timedelta | None = None
    """What it asked for, where that is longer than `wait`."""

    @property
    def remark(self) -> str:
        """What to add to the text of an error; empty unless the wait was cut."""
        if self.asked is None:
            return ""
        asked = str(self.asked) if self.asked < LONGEST_TOLD else "more than a year"
        return f" and asks for a wait of {asked}; {self.wait} are kept"


def read(headers: Mapping[str, Any] | None, *, now: dt.datetime | None = None) -> RetryAfter:
    """
    Read the header out of a response's headers, whatever the case of their names.

    A date is compared with the response's own `Date`, so that our clock and the provider's need not agree;
    `now` is the present where that is missing. Of a repeated header the longest wait counts.
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
        return RetryAfter(LONGEST, asked=dt.timedelta(seconds=round(longest.total_seconds())))
    return RetryAfter(longest)


def _values(header: Any) -> list[str]:
    """The values of a header that may be repeated: as a list, or joined by commas. Dates have commas too."""
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
    """So many seconds, none when they are over, and at most what a duration can be."""
    most = dt.timedelta.max.total_seconds() // 2
    return dt.timedelta(seconds=min(max(seconds, 0.0), most))


def _date(text: str) -> dt.datetime | None:
    """The moment of an HTTP date, in any of its three forms; they are all in UTC."""
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return moment.replace(tzinfo=moment.tzinfo or dt.UTC).astimezone(dt.UTC)
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError):
        return None
