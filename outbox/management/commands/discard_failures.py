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
"""Pieces of unfinished work that a message lists."""


class Command(BaseCommand):
    help = (
        "Closes open dead letters without delivering anything. They stay readable. A dead letter that "
        "unfinished work waits for stays open, unless an option ends that work as well."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        selection.add_options(parser)
        for way in owners.ways():
            parser.add_argument(f"--{way.option}", action="store_true", help=way.help)

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
            **{verb: verb in _chosen(options) for verb in ("cancel", "mark_done")},
        )
        self._show(options, "discarded", resolved.done, resolved.unfinished)
        if resolved.unfinished:
            raise CommandError(_why_left(resolved.unfinished), returncode=SOME_LEFT)

    def _left(self, dead_letters: DeadLetterQuerySet, options: dict[str, Any]) -> list[owners.Unfinished]:
        works = owners.unfinished(list(dead_letters.defer("payload", "headers", "traceback"))).values()
        return [work for work in works if not any(map(work.can_end_by, _chosen(options)))]

    def _show(self, options: dict[str, Any], verb: str, count: int, left: Sequence[owners.Unfinished]) -> None:
        if options["format"] == "json":
            self.stdout.write(json.dumps({"verb": verb, "count": count, "left_open": len(left)}))
            return
        self.stdout.write(f"{count} {verb}")
        if left and options["dry_run"]:
            self.stdout.write(_why_left(left))


def _chosen(options: dict[str, Any]) -> set[str]:
    """The ways in which unfinished work is to be ended."""
    return {way.verb for way in owners.ways() if options[way.destination]}


def _why_left(left: Sequence[owners.Unfinished]) -> str:
    about = ", ".join(sorted({work.about for work in left})[:MOST_NAMED])
    ways = [way for way in owners.ways() if any(work.can_end_by(way.verb) for work in left)]
    offered = "".join(f"; --{way.option} {way.ends}" for way in ways)
    return f"{len(left)} left open, because unfinished work waits: {about}{offered}."
