"""`manage.py outbox_status`"""

from __future__ import annotations

import json
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django_rich.management import RichCommand
from rich.live import Live
from rich.table import Table

from orderflow import status

OVER_THRESHOLD = 3


class Command(RichCommand):
    help = "Shows how the outbox, the queues, the breakers and the dead letters stand."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--watch", action="store_true", help="Show it every second, until Ctrl-C.")
        parser.add_argument("--format", choices=["table", "json"], default="table")
        parser.add_argument(
            "--oldest", type=float, default=60, help="Exit 3 when something due is older, in seconds (60)."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["watch"]:
            self._watch()
            return
        now = status.read()
        if options["format"] == "json":
            self.stdout.write(json.dumps(now, indent=2))
        else:
            self.console.print(_table(now))
        if now["oldest_due_seconds"] > options["oldest"]:
            raise CommandError(
                f"The oldest message has been due for {now['oldest_due_seconds']} s. Is a relay running?",
                returncode=OVER_THRESHOLD,
            )

    def _watch(self) -> None:
        try:
            with Live(_table(status.read()), console=self.console, auto_refresh=False) as live:
                while True:
                    time.sleep(1)
                    live.update(_table(status.read()), refresh=True)
        except KeyboardInterrupt:
            return


def _table(now: dict[str, Any]) -> Table:
    table = Table("what", "now", title="Outbox")
    table.add_row("messages waiting", _capped(now["pending"]))
    table.add_row("oldest due", f"{now['oldest_due_seconds']} s")
    table.add_row("published in the last minute", _capped(now["published_last_minute"]))
    table.add_row("parked (unknown event)", _capped(now["parked"]))
    if isinstance(now["queues"], str):
        table.add_row("queues", now["queues"])
    else:
        for queue, waiting in now["queues"].items():
            table.add_row(f"queue {queue}", str(waiting))
    for name, state in now["breakers"].items():
        table.add_row(f"breaker {name}", state)
    table.add_row("open dead letters", str(sum(now["dead_letters"].values())))
    for consumer, letters in now["dead_letters"].items():
        table.add_row(f"  {consumer}", str(letters))
    return table


def _capped(count: int) -> str:
    return f"more than {status.MOST_COUNTED}" if count > status.MOST_COUNTED else str(count)
