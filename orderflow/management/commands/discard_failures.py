"""`manage.py discard_failures`"""

from __future__ import annotations

import getpass
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orderflow import selection
from outbox import dead_letters

NOTHING_MATCHED = 4


class Command(BaseCommand):
    help = "Closes open dead letters without delivering anything. The letters stay readable."

    def add_arguments(self, parser: CommandParser) -> None:
        selection.add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        letters = selection.select(options)
        count = letters.count()
        if not count:
            raise CommandError("No open dead letter matches.", returncode=NOTHING_MATCHED)
        verb = "would be discarded"
        if not options["dry_run"]:
            if not options["reason"].strip():
                raise CommandError("Say why with --reason; the next person reads it on the letter.")
            by = f"cli:{getpass.getuser()}"
            count = dead_letters.discard(letters, by=by, reason=options["reason"]).done
            verb = "discarded"
        told = json.dumps({"verb": verb, "count": count}) if options["format"] == "json" else f"{count} {verb}"
        self.stdout.write(told)
