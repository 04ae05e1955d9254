"""`manage.py discard_failures`"""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from outbox.dead_letters import owners, resolving
from outbox.management import selection
from outbox.models import DeadLetterQuerySet

NOTHING_MATCHED = 4
SOME_LEFT = 3
MOST_NAMED = 10
"""Orders that a message lists."""


class Command(BaseCommand):
    help = (
        "Closes open dead letters without delivering anything. They stay readable. A dead letter of an "
        "unfinished order stays open, unless --cancel-orders cancels the order, or --refunded-elsewhere ends "
        "an order that waits for its refund."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        selection.add_options(parser)
        parser.add_argument(
            "--cancel-orders",
            action="store_true",
            help="Cancel the orders that wait for these dead letters, and refund what was charged.",
        )
        parser.add_argument(
            "--refunded-elsewhere",
            action="store_true",
            help="The customers were refunded by other means, which --reason describes. Ends the orders that "
            "wait for a refund, and records who decided that.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        dead_letters = selection.select(options)
        count = dead_letters.count()
        if not count:
            raise CommandError("No open dead letter matches.", returncode=NOTHING_MATCHED)
        if options["dry_run"]:
            left = self._left(dead_letters, options)
            self._show(options, "would be discarded", count - len(left), left)
            return
        if not options["reason"].strip():
            raise CommandError("Give a --reason; it is shown on the dead letter.")
        resolved = resolving.discard(
            dead_letters,
            by=f"cli:{getpass.getuser()}",
            reason=options["reason"],
            cancel=options["cancel_orders"],
            mark_done=options["refunded_elsewhere"],
        )
        self._show(options, "discarded", resolved.done, resolved.unfinished)
        if resolved.unfinished:
            raise CommandError(_why_left(resolved.unfinished), returncode=SOME_LEFT)

    def _left(self, dead_letters: DeadLetterQuerySet, options: dict[str, Any]) -> list[owners.Unfinished]:
        works = owners.unfinished(list(dead_letters.defer("payload", "headers", "traceback"))).values()
        cancel, mark_done = options["cancel_orders"], options["refunded_elsewhere"]
        return [
            work
            for work in works
            if not ((cancel and work.can_be_cancelled) or (mark_done and work.can_be_marked_done))
        ]

    def _show(self, options: dict[str, Any], verb: str, count: int, left: Sequence[owners.Unfinished]) -> None:
        if options["format"] == "json":
            self.stdout.write(json.dumps({"verb": verb, "count": count, "left_open": len(left)}))
            return
        self.stdout.write(f"{count} {verb}")
        if left and options["dry_run"]:
            self.stdout.write(_why_left(left))


def _why_left(left: Sequence[owners.Unfinished]) -> str:
    about = ", ".join(sorted({work.about for work in left})[:MOST_NAMED])
    way = "; --cancel-orders cancels them as well" if any(work.can_be_cancelled for work in left) else ""
    if any(work.can_be_marked_done for work in left):
        way += "; --refunded-elsewhere ends those whose customers were refunded by other means"
    return f"{len(left)} left open, because orders wait: {about}{way}."
