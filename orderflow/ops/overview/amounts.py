"""Numbers, durations and ages as the overview's reader sees them. Any number has a short form."""

from __future__ import annotations

import math

UNKNOWN = "unknown"

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_DURATIONS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def exact(number: float) -> str:
    """Return a whole number with its digits in groups."""
    return f"{number:,.0f}"


def short(number: float) -> str:
    """Return a number in at most five characters and a prefix: 999, 1.2k, 35M."""
    if abs(number) >= 1e21:
        return f"{number:.0e}"
    exponent = 0
    while abs(number) >= 999.5 and exponent < len(_PREFIXES) - 1:
        number, exponent = number / 1000, exponent + 1
    return f"{_digits(number)}{_PREFIXES[exponent]}"


def duration(seconds: float | None) -> str:
    """Return a duration in its largest unit: 85 ms, 2.5 s, 34 min, 5 h, 12 d. None is unknown."""
    if seconds is None or math.isnan(seconds):
        return UNKNOWN
    if math.isinf(seconds):
        return "longer than is measured"
    if seconds < 0:
        return f"−{duration(-seconds)}"
    if 0 < seconds < 0.9995:
        return f"{max(1, round(seconds * 1000))} ms"
    for size, unit in _DURATIONS:
        if seconds >= 2 * size:
            amount = seconds / size
            return f"{f'{amount:.0f}' if amount < 9999.5 else short(amount)} {unit}"
    return f"{_digits(seconds)} s"


def ago(seconds: float | None) -> str:
    """
    Return an age. A time in the future means that a clock was wrong, or was set back; None means never.
    """
    if seconds is None:
        return "never"
    if seconds < -1:
        return f"in the future by {duration(-seconds)}: a clock was wrong"
    return f"{duration(max(0.0, seconds))} ago"


def counted(number: int, noun: str, *, most: int | None = None) -> str:
    """Return a number of things. One above `most` was not counted to the end."""
    if most is not None and number > most:
        return f"more than {exact(most)} {noun}s"
    return f"{exact(number)} {noun}{'' if number == 1 else 's'}"


def _digits(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0") if abs(number) < 99.95 else f"{number:.0f}"
