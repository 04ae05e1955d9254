"""JSON values that no field should have, and an encoder for those that Python's encoder cannot write."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hypothesis import strategies as st


@dataclasses.dataclass(frozen=True)
class Raw:
    """A text that is written to the JSON unchanged."""

    text: str

    def __repr__(self) -> str:
        return f"Raw({self.text[:20]!r}, {len(self.text)} characters)"


class Missing:
    """In place of a value: the field is missing."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = Missing()

CORPUS: dict[str, Any] = {
    "missing": MISSING,
    "null": None,
    "empty": "",
    "blank": " ",
    "NUL": "a\x00b",
    "NUL alone": "\x00",
    "lone surrogate": "a \ud83d b",
    "half a pair, twice": "\udc00\ud800",
    "an escape that is a text": "\\u0000 \\ud800 \\x00",
    "text of 300 characters": "x" * 300,
    "text of 100,000 characters": "é" * 100_000,
    "control characters": "\x01\x1b[31m\r\n\u2028\u202e\ufeff",
    "markup": "<script>alert(1)</script>{{ 7 * 7 }}%s{0}'\"; --",
    "true": True,
    "false": False,
    "zero": 0,
    "minus one": -1,
    "a fraction": 0.5,
    "a number beyond a column": 2**63,
    "a number of 4,000 digits": Raw("9" * 4000),
    "a number of 5,000 digits": Raw("9" * 5000),
    "infinity": Raw("1e999"),
    "NaN": Raw("NaN"),
    "Infinity": Raw("-Infinity"),
    "an empty list": [],
    "an empty object": {},
    "a list": ["a\x00", None, {}],
    "an object": {"id": "a\x00", "data": [], "message": None},
    "100 brackets": Raw("[" * 100 + "]" * 100),
    "100,000 brackets": Raw("[" * 100_000 + "]" * 100_000),
    "no JSON": Raw("{'a': undefined"),
    "another server": "https://192.0.2.1/page?after=1",
}

TEXTS = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("\x00\ud800\udfff\u202e\r\n")), max_size=400
)

ANY = st.one_of(
    st.sampled_from(list(CORPUS.values())),
    TEXTS,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=6,
    ),
)
"""Values of every kind that JSON allows, and some that it does not."""


def written(document: Any) -> bytes:
    """Encode a document as bytes, including its `Raw` values."""
    raws: list[str] = []

    def mark(value: object) -> str:
        assert isinstance(value, Raw), value
        raws.append(value.text)
        return f"--raw-{len(raws) - 1}--"

    text = json.dumps(document, default=mark)
    for number, raw in enumerate(raws):
        text = text.replace(f'"--raw-{number}--"', raw)
    return text.encode()
