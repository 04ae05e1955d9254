"""`manage.py order_trace NUMBER`"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django_rich.management import RichCommand
from rich.table import Table
from rich.text import Text

from orderflow.ops import order_story
from orders import queries
from orders.models import Order


class Command(RichCommand):
    help = "Shows an order's whole history: moves, messages, attempts, payments, notifications, dead letters."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("number", help="The order's number, e.g. OF-1042, or its id.")
        parser.add_argument("--format", choices=["table", "json"], default="table")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            order = queries.find_order(options["number"])
        except Order.DoesNotExist as missing:
            raise CommandError(f"There is no order {options['number']}.") from missing
        story, outlook, command = (
            order_story.story(order),
            order_story.outlook(order),
            order_story.way_out(order),
        )
        if options["format"] == "json":
            summary = {"order": order.number, "status": order.status, "outlook": outlook, "command": command}
            entries = [dataclasses.asdict(entry) for entry in story]
            self.stdout.write(json.dumps({**summary, "story": entries}, default=str, indent=2))
            return
        self.console.print(_table(order, story))
        self.console.print(Text(outlook))
        if command:
            self.console.print(Text(command), soft_wrap=True)  # a truncated line could not be copied


def _table(order: Order, story: list[order_story.Entry]) -> Table:
    """Time and event; ids are in full, on lines of their own, so that they can be copied."""
    table = Table("time (UTC)", "what happened", title=f"{order.number}: {order.status}")
    for entry in story:
        what = Text(f"{'! ' if entry.trouble else ''}{entry.kind}: {entry.what}")
        what.stylize("bold red" if entry.trouble else "")
        parts = [what, *(Text(part) for part in (entry.detail, entry.reference) if part)]
        whole = Text("\n").join(parts)
        whole.overflow = "fold"
        table.add_row(f"{entry.at:%m-%d %H:%M:%S.%f}"[:-3], whole)
    return table
