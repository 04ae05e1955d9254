"""Which dead letters an operator means: the same options for replaying and discarding."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from orders.models import Order
from outbox.models import DeadLetter, DeadLetterQuerySet

SPAN = re.compile(r"(\d+)([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def add_options(parser: CommandParser) -> None:
    """Add the options that select dead letters."""
    parser.add_argument("--id", dest="ids", type=int, nargs="+", help="These dead letters.")
    parser.add_argument("--consumer", help="What this consumer gave up on, e.g. orders.tasks.charge.")
    parser.add_argument("--error", help="Those with this error class, e.g. PaymentRequestRefused.")
    parser.add_argument("--since", help="Those buried since then: 2h, 3d, or a time like 2026-11-24T08:00.")
    parser.add_argument("--order", help="Those of the order with this number.")
    parser.add_argument("--all", action="store_true", help="Every open dead letter.")
    parser.add_argument("--limit", type=int, help="At most that many, the oldest first.")
    parser.add_argument("--dry-run", action="store_true", help="Show what would be done, change nothing.")
    parser.add_argument("--reason", default="", help="Why; the next person reads it on the letter.")
    parser.add_argument("--format", choices=["table", "json"], default="table")


def select(options: dict[str, Any]) -> DeadLetterQuerySet:
    """
    The open dead letters the options mean.

    Raises:
        CommandError: if they mean none in particular, or cannot be understood.
    """
    chosen = [options[name] for name in ("ids", "consumer", "error", "since", "order")]
    if not any(chosen) and not options["all"]:
        raise CommandError("Say which: --id, --consumer, --error, --since, --order or --all.")
    letters = DeadLetter.objects.unresolved().order_by("pk")
    if options["ids"]:
        letters = letters.filter(pk__in=options["ids"])
    if options["consumer"]:
        letters = letters.filter(consumer=options["consumer"])
    if options["error"]:
        letters = letters.filter(error_class=options["error"])
    if options["since"]:
        letters = letters.filter(buried_at__gte=moment(options["since"]))
    if options["order"]:
        order = Order.objects.filter(number__iexact=options["order"]).first()
        if order is None:
            raise CommandError(f"There is no order {options['order']}.")
        letters = letters.filter(key=str(order.pk))
    if options["limit"] is not None:
        if options["limit"] < 1:
            raise CommandError("--limit must be at least 1.")
        letters = letters.filter(pk__in=list(letters.values_list("pk", flat=True)[: options["limit"]]))
    return letters


def moment(text: str) -> dt.datetime:
    """
    The time that `2h` ago was, or that is written out.

    Raises:
        CommandError: if it is neither.
    """
    try:
        if span := SPAN.fullmatch(text):
            return timezone.now() - dt.timedelta(**{UNITS[span[2]]: int(span[1])})
        at = parse_datetime(text)
    except (ValueError, OverflowError):
        at = None
    if at is None:
        raise CommandError(f"--since {text!r}: write 30m, 2h, 3d or a time like 2026-11-24T08:00.")
    return timezone.make_aware(at) if timezone.is_naive(at) else at
