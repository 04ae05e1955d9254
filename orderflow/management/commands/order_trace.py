"""`manage.py order_trace NUMBER`"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django_rich.management import RichCommand
from rich.table import Table
from rich.text import Text

from orderflow import trace
from orders.models import Order


class Command(RichCommand):
    help = "Tells an order's whole story: moves, messages, attempts, payments, notifications, dead letters."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("number", help="The order's number, e.g. OF-1042.")
        parser.add_argument("--format", choices=["table", "json"], default="table")

    def handle(self, *args: Any, **options: Any) -> None:
        order = Order.objects.filter(number__iexact=options["number"]).first()
        if order is None:
            raise CommandError(f"There is no order {options['number']}.")
        story, outlook = trace.story(order), trace.outlook(order)
        if options["format"] == "json":
            told = {"order": order.number, "status": order.status, "outlook": outlook}
            entries = [dataclasses.asdict(entry) for entry in story]
            self.stdout.write(json.dumps({**told, "story": entries}, default=str, indent=2))
            return
        table = Table("time (UTC)", "what", "detail", "reference", title=f"{order.number}: {order.status}")
        for entry in story:
            what = Text(f"{'! ' if entry.trouble else ''}{entry.kind}: {entry.what}")
            what.stylize("bold red" if entry.trouble else "")
            table.add_row(f"{entry.at:%m-%d %H:%M:%S.%f}"[:-3], what, Text(entry.detail), Text(entry.reference))
        self.console.print(table)
        self.console.print(Text(outlook))
