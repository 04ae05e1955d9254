"""`manage.py replay_failures`"""

from __future__ import annotations

import getpass
import json
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orderflow import selection
from outbox import dead_letters
from outbox.models import DeadLetter, DeadLetterQuerySet

NOTHING_MATCHED = 4
SOME_LEFT = 3


class Command(BaseCommand):
    help = "Delivers the messages of open dead letters again. What has taken effect stays single."

    def add_arguments(self, parser: CommandParser) -> None:
        selection.add_options(parser)
        parser.add_argument("--rate", type=float, help="Messages a second; all at once when not given.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["rate"] is not None and options["rate"] <= 0:
            raise CommandError("--rate must be above 0.")
        letters = selection.select(options)
        preview = dead_letters.preview(letters)
        if not preview.replayable and not preview.unreadable:
            raise CommandError("No open dead letter matches.", returncode=NOTHING_MATCHED)
        if options["dry_run"]:
            self._show(options, "would be replayed", preview.replayable, preview)
            return
        if not options["reason"].strip():
            raise CommandError("Say why with --reason; the next person reads it on the letter.")
        done = self._replay(letters, options)
        self._show(options, "replayed", done, preview)
        if preview.unreadable:
            raise CommandError(
                f"Left open, with no message to deliver: {', '.join(preview.why_not())}; discard them.",
                returncode=SOME_LEFT,
            )

    def _replay(self, letters: DeadLetterQuerySet, options: dict[str, Any]) -> int:
        by = f"cli:{getpass.getuser()}"
        if options["rate"] is None:
            return dead_letters.replay(letters, by=by, reason=options["reason"]).done
        done = 0
        for pk in list(letters.values_list("pk", flat=True)):
            one = DeadLetter.objects.filter(pk=pk)
            done += dead_letters.replay(one, by=by, reason=options["reason"]).done
            time.sleep(1 / options["rate"])
        return done

    def _show(self, options: dict[str, Any], verb: str, done: int, preview: dead_letters.Preview) -> None:
        if options["format"] == "json":
            counts = {
                "verb": verb,
                "count": done,
                "unreadable": preview.unreadable,
                "why_not": preview.why_not(),
                "by_consumer": preview.by_consumer,
            }
            self.stdout.write(json.dumps(counts))
            return
        because = f": {', '.join(preview.why_not())}" if preview.unreadable else ""
        self.stdout.write(f"{done} {verb}, {preview.unreadable} cannot be{because}")
        for consumer, count in sorted(preview.by_consumer.items()):
            self.stdout.write(f"  {count:>6}  {consumer}")
