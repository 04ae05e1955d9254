"""
Redaction of logs and error reports: addresses, phone numbers, cards, secrets and query strings.

A text is truncated before it is searched, every quantifier is bounded, and no pattern restarts inside what it
has matched: the time depends only on the length of the text, linearly. In doubt, more is removed than
necessary. Ids stay.
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
"""Characters of a text that are kept, from its beginning and its end; some tracebacks are this long."""

FIRST = LONGEST_TEXT // 3
"""The part of them from its beginning. The end of a traceback is the most informative."""

DEEPEST = 32
"""The levels of a nested value that are read; deeper ones are left out."""

SHORT = 64
"""Maximum length of the texts whose redaction is remembered, in characters."""

SHORTEST_SECRET = 8
"""Minimum length of a setting that is removed wherever it occurs; a shorter one may be an ordinary word."""

_MOST = 5 * LONGEST_TEXT
"""The bound of quantifiers without a natural one: no text is that long, even with `REDACTED` in it."""

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
"""Keys of a mapping whose values are always removed."""


def _quoted(mark: str) -> str:
    """A quoted text, possibly unterminated, possibly inside another quoted text."""
    return rf"[bru]{{0,2}}\\{{0,4}}{mark}(?:[^{mark}\\]|\\.){{0,{_MOST}}}+"


def _shape(signs: str, pattern: str) -> tuple[tuple[str, ...], re.Pattern[str]]:
    """A pattern, and the lower-case texts of which one must occur for it to match: nearly no text has any."""
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
_REPLACED = rf"\g<kept>{REDACTED}"
_WORD = re.compile(rf"[^\s\"'<>]{{3,{_MOST}}}+")
_MANY_DIGITS = re.compile(r"\d[\d \t\xa0\u202f+%-]{11}")
_CARD = re.compile(rf"\d(?:(?:[ \t\xa0\u202f+-]|%20)?\d){{12,{_MOST}}}+")
_DIGIT = re.compile(r"\d")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IDS = re.compile(
    r"(?i)([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|(?<![0-9a-f])(?=[0-9]{0,31}[a-f])[0-9a-f]{32}(?![0-9a-f]))"
)


_PLAIN = (type(None), bool, int, float, decimal.Decimal, uuid.UUID, dt.date, dt.timedelta)


def redacted(value: Any, *, level: int = 0) -> Any:
    """Return `value` without what looks like personal data or a secret; ids, numbers and times stay."""
    if isinstance(value, str) and level <= DEEPEST:
        return redacted_text(value)
    if isinstance(value, _PLAIN):
        return value
    if level > DEEPEST:
        return REDACTED
    if isinstance(value, Mapping):
        return dict(_redacted_items(value, level=level + 1))
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(item, level=level + 1) for item in value]
    return redacted_text(_described(value))


def _redacted_items(mapping: Mapping[Any, Any], *, level: int) -> Iterator[tuple[Any, Any]]:
    for key, item in mapping.items():
        if isinstance(key, str):
            name, is_secret = _known_key(key) if len(key) <= SHORT else _key(key)
            yield name, REDACTED if is_secret and item is not None else redacted(item, level=level)
        else:
            yield redacted(key, level=level), redacted(item, level=level)


def _described(value: object) -> str:
    try:
        return repr(value)
    except Exception as failure:  # a log line must not cause a failure
        return f"<{type(value).__name__}, which cannot be shown: {type(failure).__name__}>"


def _key(key: str) -> tuple[str, bool]:
    """The redacted key of a mapping, and whether its value is a secret."""
    return redacted_text(key), bool(_KEY.search(key[-40:]))


_known_key = functools.lru_cache(1024)(_key)


def redacted_text(text: str) -> str:
    """Return the text, truncated, without what looks like personal data or a secret."""
    if len(text) == 36 and _ID.fullmatch(text):
        secrets = _secrets_like_ids()
        if not (secrets and any(secret in text for secret in secrets)):
            return text
    if len(text) <= SHORT and not _DIGIT.search(text):
        return _known(text)
    return _redacted(text)


def _redacted(text: str) -> str:
    text = _cut(text)
    for secret in _configured():
        if secret in text:
            text = text.replace(secret, REDACTED)
    if "://" in text or "?" in text:
        text = _WORD.sub(_without_credentials, text)
    plain = text.lower()
    for signs, shape in _SHAPES:
        for sign in signs:  # a loop, because a generator takes twice as long, ten times per order
            if sign in plain:
                text = shape.sub(_REPLACED, text)
                break
    if _MANY_DIGITS.search(text):
        parts = _IDS.split(text)
        parts[::2] = [_CARD.sub(REDACTED, part) for part in parts[::2]]
        text = "".join(parts)
    return text


_known = functools.lru_cache(4096)(_redacted)
"""Short texts without digits are names of signals, loggers, tasks and fields; they come again all the time."""


def _cut(text: str) -> str:
    """Return the beginning and the end of a long text, without the words at the cuts."""
    if len(text) <= LONGEST_TEXT:
        return text
    first = _whole(text[:FIRST][::-1])[::-1]
    last = _whole(text[FIRST - LONGEST_TEXT :])
    return f"{first} [{len(text) - LONGEST_TEXT} characters left out] {last}"


def _whole(text: str) -> str:
    """Return a text from its first complete word on."""
    words = text.lstrip(string.digits + " -+().").split(maxsplit=1)
    return words[1] if len(words) > 1 else ""


def _without_credentials(word: re.Match[str]) -> str:
    """Return a URL without its user and password, which may contain any character, and without its query."""
    url = word[0]
    begin, end = url.find("://"), url.rfind("@")
    if 0 <= begin < end:
        url = f"{url[: begin + 3]}{REDACTED}{url[end:]}"
    path = url.find("/")
    mark = url.find("?", path)
    return f"{url[: mark + 1]}{REDACTED}" if 0 <= path < mark < len(url) - 1 else url


@functools.cache
def _configured() -> tuple[str, ...]:
    """The secrets in the settings, longest first."""
    found = {secret for name in dir(settings) if name.isupper() for secret in _secrets_in(name)}
    return tuple(sorted((secret for secret in found if len(secret) >= SHORTEST_SECRET), key=len, reverse=True))


@functools.cache
def _secrets_like_ids() -> tuple[str, ...]:
    """The secrets in the settings that could be a part of an id; usually none."""
    return tuple(secret for secret in _configured() if _ID_LETTERS.issuperset(secret))


_ID_LETTERS = frozenset("0123456789abcdef-")


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
    """Read the settings again: they have changed."""
    for cached in (_configured, _secrets_like_ids, _known, _known_key):
        cached.cache_clear()


setting_changed.connect(_forget)
