"""Texts that are meant to slow down the redaction of logs: repeated parts of its patterns."""

from __future__ import annotations

from collections.abc import Iterator

LENGTH = 64 * 1024

PARTS = (
    "a",
    "a.",
    "a@",
    "@",
    "a@a",
    "%40",
    "a%40",
    "%",
    "%25",
    "%2540",
    "2540",
    "40",
    "+",
    "+1",
    "+1 ",
    "1 ",
    "1",
    "1-",
    "00",
    "00 1 ",
    "a:",
    "://",
    "://a",
    "://a:",
    "?/",
    "/?",
    "/",
    "eyj",
    "eyJ-",
    "AIza",
    "ya29.",
    "of_live_",
    "_secret_",
    "basic ",
    "bearer:",
    "password=",
    'password="',
    "password='",
    "pass",
    "token: ",
    "\\",
    '\\"',
    '"',
    "'",
    '"@',
    "-----BEGIN PRIVATE KEY",
    "-----BEGIN ",
    "a-",
    "0123456789abcdef",
    "é",
    "İ",
    "(",
    "[",
    "@[",
    "[a@",
    "\n",
    " ",
    "\t ",
    "\x00",
    "\ud800",
    "+44(0)",
    "%2b",
    "%2b1%20",
    "secret_",
    "auth ",
    "a b",
    "=",
    "& ",
    "csrf",
    'csrf""""    ',
    "api key",
    "😀",
    "＠",
)


def texts() -> Iterator[str]:
    """
    Each part, and one in ten of all pairs of them, until the text is long enough; and each part before what
    redaction makes longer.
    """
    pairs = (a + b for i, a in enumerate(PARTS) for j, b in enumerate(PARTS) if (3 * i + j) % 10 == 0)
    for part in (*PARTS, *pairs):
        yield (part * (LENGTH // len(part) + 1))[:LENGTH]
    for part in PARTS:
        yield (part * (LENGTH // 2 // len(part)) + " a://@" * LENGTH)[:LENGTH]
