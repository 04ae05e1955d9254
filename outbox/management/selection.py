"""The options that select dead letters, for replaying and for discarding."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from outbox.database import clock
from outbox.models import DeadLetter, DeadLetterQuerySet

SPAN = re.compile(r"(\d+)([smhd])")
ARGUMENTS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

KeyOf = Callable[[str], str | None]
_keys: dict[str, tuple[str, KeyOf]] = {}


def register(option: str, *, help: str, key_of: KeyOf) -> None:  # noqa: A002 - as argparse calls it
    """
    Register `--option VALUE`, which selects the dead letters of one key. Apps call this in `ready()`.

    `key_of` returns the key of the value, or None if there is none.
    """
    _keys[option] = (help, key_of)


def add_options(parser: CommandParser) -> None:
    """Add the options that select dead letters."""
    parser.add_argument("--id", dest="ids", type=int, nargs="+", help="The dead letters with these ids.")
    parser.add_argument("--consumer", help="Dead letters of this consumer, e.g. billing.tasks.collect.")
    parser.add_argument("--error", help="Dead letters with this error class, e.g. ConnectionRefusedError.")
    parser.add_argument("--key", help="Dead letters of this key, the id that their event has as its key.")
    parser.add_argument(
        "--since", help="Dead letters buried since then: 2h, 3d, or a time like 2026-11-24T08:00."
    )
    for option, (meaning, _) in _keys.items():
        parser.add_argument(f"--{option}", help=meaning)
    parser.add_argument("--all", action="store_true", help="Every open dead letter.")
    parser.add_argument("--limit", type=int, help="At most this many, the oldest first.")
    parser.add_argument("--dry-run", action="store_true", help="Show what would be done, change nothing.")
    parser.add_argument("--reason", default="", help="The reason, which is shown on the dead letter.")
    parser.add_argument("--format", choices=["table", "json"], default="table")


def select(options: dict[str, Any]) -> DeadLetterQuerySet:
    """
    Return the open dead letters that the options select.

    Raises:
        CommandError: if no selection is given, or if it is invalid.
    """
    chosen = [options[name] for name in ("ids", "consumer", "error", "key", "since", *_keys)]
    if not any(chosen) and not options["all"]:
        ways = ", ".join(f"--{name}" for name in ("id", "consumer", "error", "key", "since", *_keys))
        raise CommandError(f"Select dead letters by {ways} or --all.")
    dead_letters = DeadLetter.objects.open().order_by("pk")
    if options["ids"]:
        dead_letters = dead_letters.filter(pk__in=options["ids"])
    if options["consumer"]:
        dead_letters = dead_letters.filter(consumer=options["consumer"])
    if options["error"]:
        dead_letters = dead_letters.filter(error_class=options["error"])
    if options["key"]:
        dead_letters = dead_letters.filter(key=options["key"])
    if options["since"]:
        dead_letters = dead_letters.filter(buried_at__gte=moment(options["since"]))
    for option, (_, key_of) in _keys.items():
        if options[option]:
            key = key_of(options[option])
            if key is None:
                raise CommandError(f"There is no {option} {options[option]}.")
            dead_letters = dead_letters.filter(key=key)
    if options["limit"] is not None:
        if options["limit"] < 1:
            raise CommandError("--limit must be at least 1.")
        dead_letters = dead_letters.filter(
            pk__in=list(dead_letters.values_list("pk", flat=True)[: options["limit"]])
        )
    return dead_letters


def moment(text: str) -> dt.datetime:
    """
    Return a time, given as an age such as `2h` or written out.

    Raises:
        CommandError: if the text is neither.
    """
    try:
        if span := SPAN.fullmatch(text):
            return clock.now() - dt.timedelta(**{ARGUMENTS[span[2]]: int(span[1])})
        at = parse_datetime(text)
    except (ValueError, OverflowError):
        at = None
    if at is None:
        raise CommandError(f"--since {text!r} is invalid: use 30m, 2h, 3d or a time like 2026-11-24T08:00.")
    return timezone.make_aware(at) if timezone.is_naive(at) else at
