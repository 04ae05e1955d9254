"""Which dead letters an operator means: the same options for replaying and discarding."""

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
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

KeyOf = Callable[[str], str | None]
_keys: dict[str, tuple[str, KeyOf]] = {}


def register(option: str, *, help: str, key_of: KeyOf) -> None:  # noqa: A002 - as argparse calls it
    """
    Offer `--option VALUE`, which selects the dead letters of one key. Apps call it in `ready()`.

    `key_of` says which key the value means; None: there is no such thing.
    """
    _keys[option] = (help, key_of)


def add_options(parser: CommandParser) -> None:
    """Add the options that select dead letters."""
    parser.add_argument("--id", dest="ids", type=int, nargs="+", help="These dead letters.")
    parser.add_argument("--consumer", help="What this consumer gave up on, e.g. orders.tasks.charge.")
    parser.add_argument("--error", help="Those with this error class, e.g. PaymentRequestRefused.")
    parser.add_argument("--since", help="Those buried since then: 2h, 3d, or a time like 2026-11-24T08:00.")
    for option, (meaning, _) in _keys.items():
        parser.add_argument(f"--{option}", help=meaning)
    parser.add_argument("--all", action="store_true", help="Every open dead letter.")
    parser.add_argument("--limit", type=int, help="At most that many, the oldest first.")
    parser.add_argument("--dry-run", action="store_true", help="Show what would be done, change nothing.")
    parser.add_argument("--reason", default="", help="Why; the next person reads it on the dead letter.")
    parser.add_argument("--format", choices=["table", "json"], default="table")


def select(options: dict[str, Any]) -> DeadLetterQuerySet:
    """
    The open dead letters the options mean.

    Raises:
        CommandError: if they mean none in particular, or cannot be understood.
    """
    chosen = [options[name] for name in ("ids", "consumer", "error", "since", *_keys)]
    if not any(chosen) and not options["all"]:
        ways = ", ".join(f"--{name}" for name in ("id", "consumer", "error", "since", *_keys))
        raise CommandError(f"Say which: {ways} or --all.")
    dead_letters = DeadLetter.objects.open().order_by("pk")
    if options["ids"]:
        dead_letters = dead_letters.filter(pk__in=options["ids"])
    if options["consumer"]:
        dead_letters = dead_letters.filter(consumer=options["consumer"])
    if options["error"]:
        dead_letters = dead_letters.filter(error_class=options["error"])
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
    The time that `2h` ago was, or that is written out.

    Raises:
        CommandError: if it is neither.
    """
    try:
        if span := SPAN.fullmatch(text):
            return clock.now() - dt.timedelta(**{UNITS[span[2]]: int(span[1])})
        at = parse_datetime(text)
    except (ValueError, OverflowError):
        at = None
    if at is None:
        raise CommandError(f"--since {text!r}: write 30m, 2h, 3d or a time like 2026-11-24T08:00.")
    return timezone.make_aware(at) if timezone.is_naive(at) else at
