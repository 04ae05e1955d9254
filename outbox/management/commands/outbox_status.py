"""`manage.py outbox_status`"""

from __future__ import annotations

import json
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django_rich.management import RichCommand
from rich.live import Live
from rich.table import Table
from rich.text import Text

from outbox import status
from outbox.broker import redis_kinds

OVER_THRESHOLD = 3


class Command(RichCommand):
    help = "Shows the state of the outbox, of the queues and of the dead letters."

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
        if worries := _worries(now, oldest=options["oldest"]):
            raise CommandError(" ".join(worries), returncode=OVER_THRESHOLD)

    def _watch(self) -> None:
        try:
            with Live(_table(status.read()), console=self.console, auto_refresh=False) as live:
                while True:
                    time.sleep(1)
                    live.update(_table(status.read()), refresh=True)
        except KeyboardInterrupt:
            return


def _worries(now: dict[str, Any], *, oldest: float) -> list[str]:
    """What somebody has to look at, in sentences."""
    found = []
    if now["oldest_due_seconds"] > oldest:
        found.append(f"The oldest message has been due for {now['oldest_due_seconds']} s. Is a relay running?")
    if late := [task["name"] for task in now["periodic_tasks"] if task["is_late"]]:
        found.append(f"Not done in time: {', '.join(late)}. Are beat and its workers running?")
    found += [f"{why}. {redis_kinds.remedy(key)}." for key, why in now["wrong_keys"].items()]
    return found


def _table(now: dict[str, Any]) -> Table:
    table = Table("what", "now", title="Outbox")
    table.add_row("messages waiting", _capped(now["pending"]))
    table.add_row("oldest due", f"{now['oldest_due_seconds']} s")
    table.add_row("published in the last minute", _capped(now["published_last_minute"]))
    table.add_row("parked (not readable yet)", _capped(now["parked"]))
    if isinstance(now["queues"], str):
        table.add_row("queues", now["queues"])
    else:
        for queue, waiting in now["queues"].items():
            table.add_row(f"queue {queue}", str(waiting))
    for why in now["wrong_keys"].values():
        table.add_row("broker", Text(why, style="bold red"))
    for section in status.sections():
        for what, state in section.rows(now[section.name]):
            table.add_row(what, state)
    if restore := now["restore"]:
        style = "" if restore["is_compared"] else "bold red"
        table.add_row(
            "failed over" if restore["is_failover"] else "restored", Text(restore["says"], style=style)
        )
    for pool in now["processes"]:
        what = pool["role"] if pool["pool"] == pool["role"] else f"{pool['role']} {pool['pool']}"
        table.add_row(what, Text(pool["says"], style="bold red" if pool["gone"] else ""))
    for task in now["periodic_tasks"]:
        table.add_row(task["name"], Text(task["says"], style="bold red" if task["is_late"] else ""))
    table.add_row("open dead letters", str(sum(now["dead_letters"].values())))
    for consumer, dead_letters in now["dead_letters"].items():
        table.add_row(f"  {consumer}", str(dead_letters))
    return table


def _capped(count: int) -> str:
    return f"more than {status.MOST_COUNTED}" if count > status.MOST_COUNTED else str(count)
