"""
What logs and reports of errors leave out: addresses, phone numbers, cards, secrets and query strings.

A text is cut before anything is searched in it, every quantifier has an end, and no pattern begins again in
the middle of what it has read: the time grows with the length of the text and with nothing else. When in
doubt, more is left out than has to be. Ids stay.
"""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import re
import string
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from django.conf import settings
from django.core.signals import setting_changed

REDACTED = "[redacted]"

LONGEST_TEXT = 12_000
"""Characters of one text that are kept, the first and the last ones; some tracebacks are this long."""

FIRST = LONGEST_TEXT // 3
"""How many of them are from its beginning. A traceback says the most at its end."""

DEEPEST = 32
"""Levels of a value that are read; what lies deeper is left out."""

SHORTEST_SECRET = 8
"""Characters of a setting that is left out wherever it stands; a shorter one may be a word of its own."""

_MOST = 5 * LONGEST_TEXT
"""The end of every repetition that needs none: a text is never as long, also not with `REDACTED` in it."""

_LOCAL = r"[^\s\"(),:;<>@＠\[\]\\]"
_ENCODED = r"[^\s\"(),:;<>@\[\]\\&=?/#]"
_ENCODED_AT = r"%(?:25){0,4}40"
_DOMAIN = rf"(?:\[[^\s\]]{{1,80}}\]|[^\s\"'(),:;<>\[\]\\/?&=#@]{{1,{_MOST}}}+)"
_GAP = r"(?:[\s().+/\u2010-\u2015-]|%20|%28|%29|%c2%a0|%e2%80%(?:9\d|af))"
_NAMES = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|(?:api|access|private|secret|auth)[ _.-]?key|authorization"
    r"|cookie|session_?id|csrf|signature|credentials?|dsn"
)
_KEY = re.compile(rf"(?i)(?:{_NAMES})(?:_?hash|_?token|\d)?$|query_?string$|http\.query$")
"""Keys of a mapping whose values are left out, whatever they are."""


def _quoted(mark: str) -> str:
    """A quoted text, which may have no end, perhaps within another quoted text."""
    return rf"[bru]{{0,2}}\\{{0,4}}{mark}(?:[^{mark}\\]|\\.){{0,{_MOST}}}+"


def _shape(signs: str, pattern: str) -> tuple[tuple[str, ...], re.Pattern[str]]:
    """A pattern, and of what a text has something in it that matches, in lower case: nearly no text has any."""
    kept = "" if "(?P<kept>" in pattern else "(?P<kept>)"
    return tuple(signs.split("|")), re.compile(kept + pattern, re.IGNORECASE | re.DOTALL)


_SHAPES = (
    _shape(
        "private key",
        rf"-----BEGIN [A-Z ]{{0,40}}PRIVATE KEY(?:(?!-----END).){{0,{_MOST}}}+(?:-----END[A-Z ]{{0,60}}-----)?",
    ),
    _shape(
        "basic|bearer|digest|negotiate",
        rf"(?P<kept>(?:basic|bearer|digest|negotiate)(?:\s|%20|[+:=\"'\\]){{1,8}}+)[^\s\"'<>]{{1,{_MOST}}}+",
    ),
    _shape(
        "pass|pwd|secret|token|key|authorization|cookie|session|csrf|signature|credential|dsn",
        rf"(?P<kept>(?:{_NAMES})(?:_?key|_?hash|_?token|\d)?[\\\"'\])]{{0,6}}\s{{0,4}}(?:=>|[:=]|%3d|%3a)\s{{0,4}})"
        + f"(?:{_quoted(chr(34))}|{_quoted(chr(39))}|[^\\s&\"']{{1,{_MOST}}}+)",
    ),
    _shape("_live_|_test_", rf"(?:sk|rk|pk|of)_(?:live|test)_[\w-]{{1,{_MOST}}}+"),
    _shape("whsec_|_secret_", rf"(?:whsec|_secret)_[\w+/=-]{{1,{_MOST}}}+"),
    _shape("eyj", rf"eyJ[\w-]{{4,{_MOST}}}+(?:\.[\w-]{{1,{_MOST}}}+){{0,2}}"),  # JSON web tokens
    _shape("ya29.", rf"ya29\.[\w.-]{{1,{_MOST}}}+"),  # Google's access tokens
    _shape("aiza", rf"AIza[\w-]{{20,{_MOST}}}+"),  # and its API keys
    _shape("@|＠", rf"(?:\"[^\"\n]{{1,{_MOST}}}+\"|(?<!{_LOCAL}){_LOCAL}{{1,{_MOST}}}+)[@＠]{_DOMAIN}"),
    _shape(
        "40",
        rf"(?:(?<!{_ENCODED})|(?<=%40)|(?<=%2540))(?:(?!{_ENCODED_AT}){_ENCODED}){{1,{_MOST}}}+{_ENCODED_AT}{_DOMAIN}",
    ),
    _shape("+|%2b|%252b", rf"(?:\+|%(?:25){{0,4}}2b){_GAP}{{0,3}}[1-9](?:{_GAP}{{0,3}}\d){{6,40}}"),
    _shape("00", rf"(?<![\w.:-])00(?!-){_GAP}{{0,3}}[1-9](?:{_GAP}{{0,3}}\d){{6,40}}"),
)
_WORD = re.compile(rf"[^\s\"'<>]{{3,{_MOST}}}+")
_MANY_DIGITS = re.compile(r"\d[\d \t\xa0\u202f+%-]{11}")
_CARD = re.compile(rf"\d(?:(?:[ \t\xa0\u202f+-]|%20)?\d){{12,{_MOST}}}+")
_IDS = re.compile(
    r"(?i)([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|(?<![0-9a-f])(?=[0-9]{0,31}[a-f])[0-9a-f]{32}(?![0-9a-f]))"
)


def redacted(value: Any, *, level: int = 0) -> Any:
    """`value` without what looks like personal data or a secret; ids, numbers and times stay."""
    if value is None or isinstance(
        value, bool | int | float | decimal.Decimal | uuid.UUID | dt.date | dt.timedelta
    ):
        return value
    if level > DEEPEST:
        return REDACTED
    if isinstance(value, str):
        return redacted_text(value)
    if isinstance(value, Mapping):
        return dict(_redacted_items(value, level=level + 1))
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(item, level=level + 1) for item in value]
    return redacted_text(_described(value))


def _redacted_items(mapping: Mapping[Any, Any], *, level: int) -> Iterator[tuple[Any, Any]]:
    for key, item in mapping.items():
        if isinstance(key, str):
            is_secret = item is not None and _KEY.search(key[-40:])
            yield redacted_text(key), REDACTED if is_secret else redacted(item, level=level)
        else:
            yield redacted(key, level=level), redacted(item, level=level)


def _described(value: object) -> str:
    try:
        return repr(value)
    except Exception as failure:  # a line of the log is no reason to fail
        return f"<{type(value).__name__}, which cannot be shown: {type(failure).__name__}>"


def redacted_text(text: str) -> str:
    """The text, cut, without what looks like personal data or a secret."""
    text = _cut(text)
    for secret in _configured():
        if secret in text:
            text = text.replace(secret, REDACTED)
    if "://" in text or "?" in text:
        text = _WORD.sub(_without_credentials, text)
    plain = text.lower()
    for signs, shape in _SHAPES:
        if any(sign in plain for sign in signs):
            text = shape.sub(rf"\g<kept>{REDACTED}", text)
    if _MANY_DIGITS.search(text):
        parts = _IDS.split(text)
        parts[::2] = [_CARD.sub(REDACTED, part) for part in parts[::2]]
        text = "".join(parts)
    return text


def _cut(text: str) -> str:
    """The beginning and the end of a long text, without the words and numbers that the cut goes through."""
    if len(text) <= LONGEST_TEXT:
        return text
    first = _whole(text[:FIRST][::-1])[::-1]
    last = _whole(text[FIRST - LONGEST_TEXT :])
    return f"{first} [{len(text) - LONGEST_TEXT} characters left out] {last}"


def _whole(text: str) -> str:
    """A text that begins in the middle of something, from the first word on that is there as a whole."""
    words = text.lstrip(string.digits + " -+().").split(maxsplit=1)
    return words[1] if len(words) > 1 else ""


def _without_credentials(word: re.Match[str]) -> str:
    """A URL without its user and password, which may have any character in them, and without its query."""
    url = word[0]
    begin, end = url.find("://"), url.rfind("@")
    if 0 <= begin < end:
        url = f"{url[: begin + 3]}{REDACTED}{url[end:]}"
    path = url.find("/")
    mark = url.find("?", path)
    return f"{url[: mark + 1]}{REDACTED}" if 0 <= path < mark < len(url) - 1 else url


@functools.cache
def _configured() -> tuple[str, ...]:
    """The secrets among the settings, the longest first."""
    found = {secret for name in dir(settings) if name.isupper() for secret in _secrets_in(name)}
    return tuple(sorted((secret for secret in found if len(secret) >= SHORTEST_SECRET), key=len, reverse=True))


def _secrets_in(name: str) -> Iterator[str]:
    value = getattr(settings, name)
    if name == "DATABASES":
        yield from (str(database.get("PASSWORD") or "") for database in value.values())
    if not isinstance(value, str):
        return
    if _KEY.search(name):
        yield value
    if "://" in value and "@" in value:
        password = value[value.find("://") + 3 : value.rfind("@")].partition(":")[2]
        yield from (password, unquote(password))


def _forget(**_: object) -> None:
    """Look at the settings anew: they have changed."""
    _configured.cache_clear()


setting_changed.connect(_forget)
