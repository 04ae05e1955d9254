"""Malformed values that clients and browsers send in place of a text, a number, a time or an id."""

from __future__ import annotations

import json
from typing import Any

TEXTS: dict[str, str] = {
    "nothing": "",
    "a space": " ",
    "NUL": "a\x00b",
    "controls": "a\x01\x1b[31mb\x7f",
    "a line break": "a\r\nSet-Cookie: a=b",
    "C1": "a\x85\x9bb",
    "a line separator": "a\u2028b",
    "right to left": "invoice\u202etxt.exe",
    "isolates": "a\u2066b\u2069",
    "zero-width": "a\u200bb",
    "a byte order mark": "\ufeffa",
    "a tag": "a\U000e0041b",
    "no character": "a\uffffb",
    "half a character": "a\ud800b",
    "combining": "a" + "\u0301" * 200,
    "full-width digits": "\uff11\uff12",
    "quotes": "'\"`;--",
    "SQL": "' OR 1=1; DROP TABLE orders_order; --",
    "HTML": "</textarea><script>alert(1)</script>",
    "a template": "{{ settings.SECRET_KEY }}{% now 'Y' %}",
    "format": "%s%n%(x)s{0}{x.__class__}",
    "a path": "../../../../etc/passwd",
    "percent": "%",
    "twice encoded": "%2500%00",
    "a wildcard": "%_\\",
    "a regular expression": "(a+)+$[",
    "a huge number": "9" * 40,
    "beyond 64 bits": "9223372036854775808",
    "beyond 32 bits": "2147483648",
    "a negative number": "-1",
    "an exponent": "1e400",
    "no number": "NaN",
    "other digits": "\u0663",
    "superscript": "\u00b2",
    "a bad UUID": "00000000-0000-0000-0000-00000000000g",
    "a braced UUID": "{0193670c-6c5f-7a5e-8a4e-1f0f2a9b6c11}",
    "a date that is none": "2026-02-30",
    "a time out of range": "9999-12-31T23:59:59-23:59",
    "a year out of range": "10000-01-01",
    "JSON": '{"a": [1, null]}',
    "a list": "1,2,,\u00e9,9999999999999999999999",
    "true": "true",
    "a long text": "x" * 3000,
    "a card number": "4242 4242 4242 4242",
}
"""The values, by what is unusual about them."""

ODD = [
    "NUL",
    "half a character",
    "quotes",
    "a huge number",
    "beyond 64 bits",
    "a negative number",
    "superscript",
]
ODD += ["a bad UUID", "a date that is none", "a list", "right to left", "a long text"]
"""The values that are most likely to fail, which are tried even where there is no time for all."""

CARDS: dict[str, str] = {
    "bare": "4242424242424242",
    "grouped": "4242-4242-4242-4242",
    "no-break spaces": "4242\xa04242\xa04242\xa04242",
    "full-width": "".join(chr(0xFF10 + int(digit)) for digit in "4242424242424242"),
    "19 digits": "6205500000000000004",
    "13 digits": "4222222222222",
    "within": "card-378282246310005-x",
}

VALUES: dict[str, Any] = {
    **TEXTS,
    "null": None,
    "yes": True,
    "zero": 0,
    "minus one": -1,
    "a fraction": 1.5,
    "the largest integer": 2**63,
    "a longer integer": 10**4000,
    "an empty list": [],
    "a nested list": [[[[]]]],
    "an empty object": {},
    "an object": {"__proto__": {"a": 1}, "$ne": 1, "a\x00": 1},
    "a list of many": [0] * 600,
}
"""JSON values of unexpected types."""

_ORDER = (
    b'{"items": [{"sku": "MUG-01", "quantity": 1}], "currency": "GBP", "payment_method": "pm_card_visa",'
    b' "country": "GB"%s}'
)

BODIES: dict[str, tuple[bytes, frozenset[int]]] = {
    "nothing": (b"", frozenset({400, 422})),
    "no JSON": (b"a=b&c=d", frozenset({400})),
    "half of it": (_ORDER[:40], frozenset({400})),
    "two of them": (b"{}{}", frozenset({400})),
    "a comma too many": (b'{"a": 1,}', frozenset({400})),
    "a comment": (b"{} // {}", frozenset({400})),
    "NUL": (b"\x00", frozenset({400})),
    "NUL in a text": (b'{"client_reference": "\x00"}', frozenset({400})),
    "no UTF-8": (b'{"client_reference": "\xff"}', frozenset({400})),
    "an encoded half of a character": (b'{"client_reference": "\xed\xa0\x80"}', frozenset({400})),
    "an escaped half of a character": (_ORDER % rb', "client_reference": "\ud800"', frozenset({422})),
    "half a character as a name": (_ORDER % rb', "\ud800": 1', frozenset({422})),
    "UTF-16": ("{}".encode("utf-16"), frozenset({400})),
    "NaN": (b"NaN", frozenset({400})),
    "Infinity": (_ORDER % b', "x": -Infinity', frozenset({400})),
    "a member twice": (_ORDER % b', "currency": "GBP"', frozenset({400})),
    "a member twice, far inside": (_ORDER % b', "x": [{"y": {"a": 1, "a": 2}}]', frozenset({400})),
    "a member twice, once escaped": (_ORDER % rb', "\u0063urrency": "EUR"', frozenset({400})),
    "UTF-32": ("{}".encode("utf-32"), frozenset({400})),
    "two byte order marks": (b"\xef\xbb\xbf" * 2 + b"{}", frozenset({400})),
    "NUL behind it": (_ORDER % b"" + b"\x00", frozenset({400})),
    "a space that JSON does not have": (b"\xc2\xa0" + _ORDER % b"", frozenset({400})),
    "a number with a zero in front": ((_ORDER % b"").replace(b": 1}", b": 01}"), frozenset({400})),
    "not quite one": ((_ORDER % b"").replace(b": 1}", b": 1.0000000000000000001}"), frozenset({422})),
    "not quite nothing": ((_ORDER % b"").replace(b": 1}", b": 1e-400}"), frozenset({422})),
    "an absurd exponent": ((_ORDER % b"").replace(b": 1}", b": 1e" + b"9" * 50_000 + b"}"), frozenset({422})),
    "nothing, absurdly often": (
        (_ORDER % b"").replace(b": 1}", b": 0e" + b"9" * 50_000 + b"}"),
        frozenset({422}),
    ),
    "brackets within an unknown member": (
        _ORDER % (b', "x": ' + b"[" * 900 + b"]" * 900),
        frozenset({400, 422}),
    ),
    "null": (b"null", frozenset({422})),
    "a list": (b"[]", frozenset({422})),
    "a text": (b'"x"', frozenset({422})),
    "a number": (b"1", frozenset({422})),
    "a number of 60,000 digits": (b"9" * 60_000, frozenset({422})),
    "an exponent without end": (b"1e999999999", frozenset({422})),
    "brackets": (b"[" * 60_000, frozenset({400})),
    "pairs of brackets": (b"[" * 30_000 + b"]" * 30_000, frozenset({400})),
    "objects in objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, frozenset({400})),
    "many members": (
        json.dumps({f"m{number}": number for number in range(3_000)}).encode(),
        frozenset({422}),
    ),
    "too much": (b" " * (64 * 1024 + 1), frozenset({413})),
}
"""Bodies that place no order, with the allowed response statuses."""
