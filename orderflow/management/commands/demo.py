"""`manage.py demo`"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django_rich.management import RichCommand
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from orderflow.ops import demo
from orders.models import Order
from outbox.command_lines import command_line, counted

AT_MOST_EVERY, AT_LEAST_EVERY = 1.0, 3.0
"""Seconds between two progress lines: while something changes, and while nothing does."""


class Command(RichCommand):
    help = "Places a stream of orders, shows how they are processed, and lists what to try next."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--orders", type=int, default=30, help="Number of orders (30).")
        parser.add_argument("--timeout", type=float, default=90, help="Seconds after which it gives up (90).")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["orders"] < 1:
            raise CommandError("--orders must be at least 1.")
        try:
            with demo.faults():
                run = demo.begin()
                self._work(run, options["orders"], options["timeout"])
        except demo.SandboxMissing as missing:
            raise CommandError(f"{missing}. Start everything with: python3 run.py") from missing
        self._show_result(run)
        if left := run.open_orders():
            reasons = "\n".join(demo.why_open(order) for order in left)
            raise CommandError(
                f"{counted(len(left), 'order')} not final after {options['timeout']:g} s:\n{reasons}"
            )
        if unexplained := run.unexpected_dead_letters():
            reasons = "\n".join(
                f"{dead_letter.pk} {dead_letter}: {dead_letter.error}"[:300] for dead_letter in unexplained
            )
            raise CommandError(
                f"{counted(len(unexplained), 'dead letter')} that the demo did not cause:\n{reasons}"
            )

    def _work(self, run: demo.Run, count: int, timeout: float) -> None:
        columns = (
            TextColumn("{task.description:<40}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        on_terminal = self.console.is_terminal
        if not on_terminal:
            self.stdout.write(
                f"placing {counted(count, 'order')}; the workers of notifications start after the first ones"
            )
        with Progress(*columns, console=self.console, disable=not on_terminal) as progress:
            placed = progress.add_task("orders placed", total=count)
            final = progress.add_task("orders final", total=count)
            bar = progress.add_task("notifications", total=None)
            for number, _ in enumerate(demo.place(run, count)):
                progress.update(placed, advance=1)
                progress.update(final, completed=self._final(run))
                if number == count // 2:
                    demo.poison(run)
            deadline, log = time.monotonic() + timeout, _Log(self.stdout.write)
            while time.monotonic() < deadline:
                done = self._final(run)
                sent, all_of_them = run.notifications()
                waits_for = _waits_for(run, orders=count - done, notifications=all_of_them - sent)
                progress.update(final, completed=done)
                progress.update(bar, completed=sent, total=all_of_them, description=_titled(waits_for))
                if not on_terminal:
                    log.write(
                        f"{done} of {count} orders final, {sent} of {all_of_them} notifications", waits_for
                    )
                if not waits_for:
                    break
                time.sleep(0.1)

    def _final(self, run: demo.Run) -> int:
        return len(run.order_ids) - run.orders().unfinished().count()

    def _show_result(self, run: demo.Run) -> None:
        self.console.print(_summary(run))
        self.console.print(_windows())
        self.console.print(_next_steps(), soft_wrap=True)  # truncated lines could not be copied


class _Log:
    """Progress without a terminal: a line for every change, and one from time to time without changes."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write, self._last, self._at = write, "", 0.0

    def write(self, state: str, waits_for: str) -> None:
        line = f"{state}; waits for {waits_for}" if waits_for else state
        silent = time.monotonic() - self._at
        if silent > (AT_MOST_EVERY if line != self._last else AT_LEAST_EVERY) or not waits_for:
            self._write(line)
            self._last, self._at = line, time.monotonic()


def _waits_for(run: demo.Run, *, orders: int, notifications: int) -> str:
    """What the demo still waits for; empty if nothing."""
    if orders:
        return "the last order" if orders == 1 else f"{orders} orders"
    if notifications:
        return "the last notification" if notifications == 1 else f"{notifications} notifications"
    if len(run.order_ids) >= 2 * len(demo.SPECIAL) and not run.has_expected_dead_letters():
        return "the dead letters of the garbage and of the mailbox that does not exist"
    return ""


def _titled(waits_for: str) -> str:
    return "notifications" if "notification" in waits_for or not waits_for else f"waits for {waits_for}"


def _summary(run: demo.Run) -> Table:
    statuses, counts = run.statuses(), demo.delivered()
    table = Table(title="What happened", show_header=False)
    table.add_row("orders placed", str(len(run.order_ids)))
    table.add_row("fulfilled", str(statuses[Order.Status.FULFILLED]))
    table.add_row("rejected (declined card, out of stock)", str(statuses[Order.Status.REJECTED]))
    table.add_row("cancelled and refunded (cannot be shipped)", str(statuses[Order.Status.CANCELLED]))
    table.add_row("not final", str(len(run.open_orders())))
    table.add_row("open dead letters (garbage, an unknown mailbox)", str(run.dead_letters().count()))
    for name, title in (("emails", "e-mails"), ("sms", "SMS"), ("pushes", "pushes")):
        count = counts.get(name)
        table.add_row(f"{title} in the sandbox", "?" if count is None else str(count))
    first = run.first_fulfilled_at()
    if first and settings.STARTED_AT:
        table.add_row("start to first fulfilled order", f"{first.timestamp() - settings.STARTED_AT:.1f} s")
    return table


def _windows() -> Table:
    table = Table(title="Addresses", show_header=False)
    table.add_row("admin", f"{settings.WEB_URL}/admin/")
    table.add_row("API documentation", f"{settings.WEB_URL}/api/v1/docs")
    table.add_row("Flower", settings.FLOWER_URL or "not started")
    table.add_row("mailbox of the sandbox", settings.SANDBOX_URL or "not started")
    if settings.ADMIN_PASSWORD:
        table.add_row("user and password", f"{settings.ADMIN_USER}  {settings.ADMIN_PASSWORD}")
    return table


def _next_steps() -> str:
    payments, shown = settings.STRIPE_API_BASE, f"-u sandbox:{settings.SANDBOX_PASSWORD}"
    retry = command_line(
        "replay_failures", "--consumer", "notifications.tasks.send_email", reason="the mailbox exists now"
    )
    return (
        "\n[bold]Break it and watch[/]: the order waits, spends no attempts, and continues by itself\n"
        f"  curl {shown} -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"fault": "error"}}\' {payments}/_control\n'
        f"  {command_line('place_order', '--sku', 'MUG-BLUE', '--email', 'you@example.com')}\n"
        f"  {command_line('outbox_status', '--watch')}\n"
        f"  curl {shown} -X DELETE {payments}/_control\n"
        "[bold]Replay it[/]: work that could not be finished is kept, and can be delivered again\n"
        f"  {command_line('replay_failures', '--all', '--dry-run')}\n"
        f"  {retry}\n"
    )
