"""`manage.py demo`"""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django_rich.management import RichCommand
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from orderflow import demo
from orders.models import Order


class Command(RichCommand):
    help = "Places a stream of orders, shows them being worked off, and tells what to try next."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--orders", type=int, default=30, help="How many (30).")
        parser.add_argument("--timeout", type=float, default=90, help="Seconds until it gives up (90).")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["orders"] < 1:
            raise CommandError("--orders must be at least 1.")
        try:
            with demo.faults():
                run = demo.begin()
                self._work(run, options["orders"], options["timeout"])
        except demo.SandboxMissing as missing:
            raise CommandError(f"{missing}. Start everything with: python3 run.py") from missing
        self._tell(run)
        if left := run.open_orders():
            reasons = "\n".join(demo.why_open(order) for order in left)
            raise CommandError(f"{len(left)} orders are not final after {options['timeout']:g} s:\n{reasons}")
        if unexplained := run.unexplained_letters():
            reasons = "\n".join(f"{letter.pk} {letter}: {letter.error}"[:300] for letter in unexplained)
            raise CommandError(f"{len(unexplained)} dead letters that the demo did not provoke:\n{reasons}")

    def _work(self, run: demo.Run, count: int, timeout: float) -> None:
        columns = (
            TextColumn("{task.description:<40}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        on_terminal = self.console.is_terminal
        with Progress(*columns, console=self.console, disable=not on_terminal) as progress:
            placed = progress.add_task("orders placed", total=count)
            final = progress.add_task("orders final", total=count)
            told = progress.add_task("notifications", total=None)
            for number, _ in enumerate(demo.place(run, count)):
                progress.update(placed, advance=1)
                progress.update(final, completed=self._final(run))
                if number == count // 2:
                    demo.poison(run)
            deadline, before = time.monotonic() + timeout, -1
            while time.monotonic() < deadline:
                done = self._final(run)
                sent, all_of_them = run.notifications()
                progress.update(final, completed=done)
                progress.update(told, completed=sent, total=all_of_them)
                if done != before and not on_terminal:
                    self.stdout.write(f"{done} of {count} orders are final")
                if done == count and self._all_told(run):
                    break
                before = done
                time.sleep(0.1)

    def _all_told(self, run: demo.Run) -> bool:
        sent, all_of_them = run.notifications()
        provoked = len(run.order_ids) < 2 * len(demo.SPECIAL) or run.has_provoked_letters()
        return sent == all_of_them and provoked

    def _final(self, run: demo.Run) -> int:
        return len(run.order_ids) - run.orders().unfinished().count()

    def _tell(self, run: demo.Run) -> None:
        self.console.print(_summary(run))
        self.console.print(_windows())
        self.console.print(_next_steps(), soft_wrap=True)  # lines that are cut cannot be copied


def _summary(run: demo.Run) -> Table:
    statuses, counts = run.statuses(), demo.delivered()
    table = Table(title="What happened", show_header=False)
    table.add_row("orders placed", str(len(run.order_ids)))
    table.add_row("fulfilled", str(statuses[Order.Status.FULFILLED]))
    table.add_row("rejected (declined card, out of stock)", str(statuses[Order.Status.REJECTED]))
    table.add_row("cancelled and refunded (cannot be shipped)", str(statuses[Order.Status.CANCELLED]))
    table.add_row("not final", str(len(run.open_orders())))
    table.add_row("open dead letters (garbage, a mailbox that is not)", str(run.letters().count()))
    for name, title in (("emails", "e-mails"), ("sms", "SMS"), ("pushes", "pushes")):
        count = counts.get(name)
        table.add_row(f"{title} in the sandbox", "?" if count is None else str(count))
    first = run.first_fulfilled_at()
    if first and settings.STARTED_AT:
        table.add_row("start to first fulfilled order", f"{first.timestamp() - settings.STARTED_AT:.1f} s")
    return table


def _windows() -> Table:
    table = Table(title="Where to look", show_header=False)
    table.add_row("admin", f"{settings.WEB_URL}/admin/")
    table.add_row("API documentation", f"{settings.WEB_URL}/api/v1/docs")
    table.add_row("Flower", settings.FLOWER_URL or "not started")
    table.add_row("mailbox of the sandbox", settings.SANDBOX_URL or "not started")
    if settings.ADMIN_PASSWORD:
        table.add_row("user and password", f"{settings.ADMIN_USER}  {settings.ADMIN_PASSWORD}")
    return table


def _next_steps() -> str:
    payments = settings.STRIPE_API_BASE
    return (
        "\n[bold]Break it and watch[/]: the order waits, spends no attempts, and goes on by itself\n"
        f"  curl -H 'Content-Type: application/json' -d '{{\"fault\": \"error\"}}' {payments}/_control\n"
        "  python3 run.py place_order --sku MUG-BLUE --email you@example.com\n"
        "  python3 run.py outbox_status --watch\n"
        f"  curl -X DELETE {payments}/_control\n"
        "[bold]Replay it[/]: what could not be finished is kept, and can be delivered again\n"
        "  python3 run.py replay_failures --all --dry-run\n"
        "  python3 run.py replay_failures --consumer notifications.tasks.send_email --reason 'try again'\n"
    )
