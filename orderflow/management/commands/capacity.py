"""`manage.py capacity`"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import Error
from django_rich.management import RichCommand
from rich.table import Table

from orderflow import checks
from orderflow.ops import capacity
from orderflow.ops.capacity import Capacity, Costs, Load
from outbox.database import sessions

GIGABYTE = 1e9


class Command(RichCommand):
    help = "Calculates the resources for a rate of orders: processors, processes, database sessions, disk."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--orders-per-second", type=float, required=True, metavar="N")
        parser.add_argument(
            "--notifications-per-order", type=float, default=2.0, metavar="M", help="Default: 2."
        )
        parser.add_argument("--broker", choices=list(capacity.MEASURED), default="redis")
        parser.add_argument(
            "--provider-ms", type=float, default=200.0, help="How long a provider takes to respond (200)."
        )
        parser.add_argument(
            "--threads",
            type=int,
            default=capacity.THREADS,
            metavar="T",
            help=f"Threads of each worker process ({capacity.THREADS}); 0: processes of a prefork pool.",
        )
        parser.add_argument(
            "--max-connections",
            type=int,
            metavar="C",
            help="The sessions that the server allows; by default the server is asked, if it answers.",
        )
        parser.add_argument(
            "--from",
            dest="report",
            type=Path,
            metavar="FILE",
            help="A report of `run.py bench pipeline intake`.",
        )
        parser.add_argument("--format", choices=["table", "json"], default="table")

    def handle(self, *args: Any, **options: Any) -> None:
        for name in ("orders_per_second", "notifications_per_order", "provider_ms", "threads"):
            if not 0 <= options[name] < float("inf"):
                raise CommandError(f"--{name.replace('_', '-')} must be 0 or more.")
        load = Load(
            orders_per_second=options["orders_per_second"],
            notifications_per_order=options["notifications_per_order"],
            broker=options["broker"],
            provider=dt.timedelta(milliseconds=options["provider_ms"]),
            threads=options["threads"],
            pool_size=settings.OUTBOX_SESSION_POOL_SIZE,
        )
        retention = dt.timedelta(days=settings.OUTBOX_RETENTION_DAYS)
        costs = _costs(options["report"]) if options["report"] else None
        answer = capacity.needed(load, costs=costs, retention=retention)
        allowed = options["max_connections"] or _allowed()
        if options["format"] == "json":
            self.stdout.write(json.dumps(answer.as_json() | {"allowed_sessions": allowed}, indent=2))
        else:
            self.console.print(_roles(answer))
            self.console.print(_disk(answer))
            self.console.print(_judged(answer.sessions, allowed))


def _allowed() -> int | None:
    """The sessions that the server allows; None if it does not answer."""
    try:
        return sessions.room().allowed
    except Error:
        return None


def _judged(wanted: int, allowed: int | None) -> str:
    """What the server says to this number of sessions."""
    if allowed is None:
        return f"{wanted:,} database sessions. The server that has to allow them does not answer."
    if wanted <= checks.MOST_SESSIONS * allowed:
        return f"{wanted:,} database sessions: the server allows {allowed:,}."
    return (
        f"{wanted:,} database sessions are too many: the server allows {allowed:,}, of which "
        f"{1 - checks.MOST_SESSIONS:.0%} are for people, backups and deployments. Lower DATABASE_POOL_SIZE, "
        "raise max_connections, or put PgBouncer in front of the server."
    )


def _costs(path: Path) -> Costs:
    try:
        return capacity.costs_of(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, capacity.Unusable) as problem:
        raise CommandError(f"{path} is not a usable report: {problem}") from problem


def _roles(answer: Capacity) -> Table:
    load = answer.load
    table = Table(
        "role",
        "at work",
        "cores",
        "processes",
        "sessions",
        title=f"{load.orders_per_second:g} orders/s, {load.notifications_per_order:g} notifications each",
        caption=f"{answer.broker_messages_per_second:,.0f} broker messages/s through {load.broker}",
    )
    for role in answer.roles:
        processes = f"{role.processes:,}" if role.processes else ""
        table.add_row(
            role.name,
            f"{role.busy:.1f}",
            f"{role.cores:,}",
            processes,
            f"{role.sessions:,}" if role.sessions else "",
        )
    table.add_row(
        "together",
        f"{sum(role.busy for role in answer.roles):.1f}",
        f"{answer.cores:,}",
        "",
        f"{answer.sessions:,}",
    )
    return table


def _disk(answer: Capacity) -> Table:
    table = Table("table", "GB a day", "kept", "GB in all")
    for kind in answer.tables:
        kept = f"{kind.kept.days} days" if kind.kept else "for good"
        held = f"{kind.a_day * kind.kept.days / GIGABYTE:,.1f}" if kind.kept else ""
        table.add_row(kind.name, f"{kind.a_day / GIGABYTE:,.2f}", kept, held)
    table.add_row("together", f"{answer.bytes_a_day / GIGABYTE:,.1f}", "", "")
    table.add_row("write-ahead log", f"{answer.wal_bytes_a_day / GIGABYTE:,.1f}", "as archived", "")
    return table
