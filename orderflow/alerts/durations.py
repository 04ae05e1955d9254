"""
Durations in rules and configurations, which one factor shortens for the matrix.

A text contains them in braces: `{4m}` becomes a duration of Prometheus, `{60}` a number of seconds. Braces of
PromQL are different: a selector contains `=` or `~`.
"""

from __future__ import annotations

import re

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_PLACEHOLDER = re.compile(r"\{(\d+)(ms|s|m|h|d|)\}")


def shortened(text: str, factor: float) -> str:
    """Return the text with its durations multiplied by `factor`, and without their braces."""
    return _PLACEHOLDER.sub(lambda found: _shortened(int(found[1]), found[2], factor), text)


def seconds(duration: str) -> float:
    """
    Return a duration such as `5m` in seconds; an empty one is 0.

    Raises:
        ValueError: if it is none.
    """
    if not duration:
        return 0.0
    found = re.fullmatch(r"(\d+)(ms|s|m|h|d)", duration)
    if found is None:
        raise ValueError(f"{duration!r} is no duration such as 5m")
    return int(found[1]) * SECONDS[found[2]]


def _shortened(number: int, unit: str, factor: float) -> str:
    if factor == 1:
        return f"{number}{unit}"
    if not unit:
        return f"{number * factor:g}"
    milliseconds = max(1, round(number * SECONDS[unit] * factor * 1000))
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"
