"""Command lines and counts, formatted for pages, texts and reports."""

from __future__ import annotations

import shlex

from outbox.conf import settings

DEFAULT = "python manage.py"
"""How commands begin in texts; `as_typed_here` replaces it with `OUTBOX_COMMAND`."""


def command_line(*words: object, reason: str = "") -> str:
    """Return a command that can be pasted into a shell."""
    because = f' --reason "{reason}"' if reason else ""
    return f"{_begin()} {shlex.join(map(str, words))}{because}"


def as_typed_here(text: str) -> str:
    """Return the text with its commands written as this installation runs them."""
    return text.replace(DEFAULT, _begin())


def counted(number: int, one: str, many: str = "") -> str:
    """`1 attempt`, `2 attempts`, `1 copy`, `0 copies`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def _begin() -> str:
    return settings.COMMAND
