"""What a PromQL expression names: its metrics, and the labels that it selects or groups by."""

from __future__ import annotations

import re

WORDS = {
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
}
WORDS |= {"inf", "nan"}
_STRINGS = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`")
_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_MATCHERS = re.compile(r"\{([^{}]*)\}")
_RANGES = re.compile(r"\[[^\[\]]*\]")
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_DURATIONS = re.compile(r"\b\d+(?:\.\d+)?(?:[eE][+-]?\d+|ms|[smhdwy]\d*)*\b")


def metrics(expression: str) -> set[str]:
    """Return the names of the metrics in an expression."""
    bare = _RANGES.sub(" ", _MATCHERS.sub(" ", _STRINGS.sub("''", expression)))
    bare = _DURATIONS.sub(" ", _GROUPED.sub(" ", bare))
    found = re.finditer(rf"({_NAME})\s*(\(?)", bare)
    return {match[1] for match in found if not match[2] and match[1].lower() not in WORDS}


def labels(expression: str) -> set[str]:
    """Return the labels that an expression selects by or groups by."""
    bare = _STRINGS.sub("''", expression)
    selected = re.findall(rf"({_NAME})\s*(?:=~|!~|!=|=)", " ".join(_MATCHERS.findall(bare)))
    return {*selected, *(name for inside in _GROUPED.findall(bare) for name in re.findall(_NAME, inside))}
