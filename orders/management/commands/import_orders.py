"""`manage.py import_orders FILE`"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django_rich.management import RichCommand
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from orders.contracts import currencies
from orders.imports import importer, invoices
from orders.management.commands.place_order import CARDS

SLOWEST = 0.001
"""Orders per second."""

MOST_NAMED = 50
"""The number of changed invoices in the closing sentence; the JSON report lists more."""


class Command(RichCommand):
    help = "Imports orders from a CSV of invoices, plain or gzipped. Importing a file twice changes nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="A .csv or .csv.gz with the columns of the retailer.")
        parser.add_argument("--limit", type=int, help="At most that many invoices.")
        parser.add_argument("--rate", type=float, help="Orders per second (default: unlimited).")
        parser.add_argument("--dry-run", action="store_true", help="Read and report, write nothing.")
        parser.add_argument(
            "--no-customer",
            choices=["skip", "guest"],
            default="skip",
            help="Lines without a customer: reject them, or accept them as a guest's.",
        )
        parser.add_argument(
            "--stock",
            choices=["enough", "scarce"],
            default="enough",
            help=f"Receive what each invoice needs, or only {importer.SCARCE_STOCK} of each new product.",
        )
        parser.add_argument("--card", choices=sorted(CARDS), default="visa")
        parser.add_argument("--format", choices=["table", "json"], default="table")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["limit"] is not None and options["limit"] <= 0:
            raise CommandError("--limit must be above 0.")
        if options["rate"] is not None and not SLOWEST <= options["rate"] < math.inf:
            raise CommandError(f"--rate must be a number from {SLOWEST} up.")
        policy = importer.Options(
            card=CARDS[options["card"]],
            guests=options["no_customer"] == "guest",
            stock=options["stock"],
            limit=options["limit"],
            dry_run=options["dry_run"],
            chunk=max(1, min(importer.CHUNK, int(options["rate"] or importer.CHUNK))),
        )
        try:
            report = self._run(options, policy)
        except invoices.UnreadableFile as unreadable:
            raise CommandError(f"Cannot import: {unreadable}.") from unreadable
        self._show(report, options)
        if report.all_rejected:
            raise CommandError(
                f"Every line was rejected; nothing {'would be' if options['dry_run'] else 'was'} imported."
            )
        if count := report.orders_changed:
            named = ", ".join(report.invoices_changed[:MOST_NAMED]) + (
                " and others" if count > MOST_NAMED else ""
            )
            raise CommandError(
                f"{count} of the invoices had been imported before with other lines; "
                f"their orders are left as they are: {named}."
            )

    def _run(self, options: dict[str, Any], policy: importer.Options) -> importer.ImportReport:
        report = importer.ImportReport()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("orders"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.err_console, disable=not self.stderr.isatty()) as progress:
            bar = progress.add_task("importing", total=options["limit"])
            began = time.monotonic()
            for report in importer.run(options["file"], policy):
                orders = report.orders_placed + report.orders_repeated + report.orders_changed
                progress.update(bar, completed=orders)
                if options["rate"]:
                    time.sleep(max(0.0, began + orders / options["rate"] - time.monotonic()))
        return report

    @property
    def err_console(self) -> Any:
        """Progress goes to standard error, so that the report can be piped."""
        return self.make_rich_console(file=self.stderr)

    def _show(self, report: importer.ImportReport, options: dict[str, Any]) -> None:
        if options["format"] == "json":
            self.stdout.write(json.dumps(report.as_dict(), indent=2))
            return
        would = "would be " if options["dry_run"] else ""
        total = currencies.written(report.total_minor, importer.CURRENCY)
        self.stdout.write(f"orders {would}placed        {report.orders_placed:>8}  {total}")
        self.stdout.write(f"orders imported before {report.orders_repeated:>8}")
        self.stdout.write(f"lines read             {report.lines_read:>8}")
        self.stdout.write(f"  {would}imported             {report.lines_imported:>8}")
        self.stdout.write(f"  merged               {report.lines_merged:>8}  same product on one invoice")
        self.stdout.write(f"  imported before      {report.lines_repeated:>8}")
        self.stdout.write(f"  changed since        {report.lines_changed:>8}  not imported")
        for reason, lines in sorted(report.rejected.items()):
            self.stdout.write(f"  rejected             {lines:>8}  {reason}")
        for mistake in report.mistakes:
            self.stdout.write(f"  {mistake}")
