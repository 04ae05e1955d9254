"""`manage.py partition_outbox`"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from outbox.database import clock
from outbox.retention import partition_table, partitions
from outbox.retention.partition_table import Span

TRY_AGAIN = 3
DEFAULT_PATIENCE = 60.0


class Command(BaseCommand):
    help = (
        "Partitions the message table by time while it is in use, so that old messages are dropped with their "
        "partition. Run it again to continue after an interruption; --undo undoes it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        span = parser.add_mutually_exclusive_group()
        span.add_argument(
            "--daily",
            action="store_const",
            dest="span",
            const=Span.DAILY,
        )
        span.add_argument("--weekly", action="store_const", dest="span", const=Span.WEEKLY, help="The default.")
        parser.add_argument("--undo", action="store_true", help="Undo the partitioning.")
        parser.add_argument("--dry-run", action="store_true", help="Show what would be done, change nothing.")
        parser.add_argument(
            "--patience",
            type=float,
            default=DEFAULT_PATIENCE,
            help="Seconds to try again while the table is in use.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        span, patience = options["span"] or Span.WEEKLY, dt.timedelta(seconds=options["patience"])
        try:
            if options["dry_run"]:
                self._show(span, undo=options["undo"])
            elif options["undo"]:
                partition_table.undo(patience=patience)
                self.stdout.write(f"{partitions.TABLE} is not partitioned.")
            else:
                names = partition_table.divide(span=span, now=clock.now(), patience=patience)
                self.stdout.write(f"{partitions.TABLE} has {len(names)} partitions, the last is {names[-1]}.")
        except partition_table.CannotDivide as reason:
            raise CommandError(f"Nothing was changed: {reason}.") from reason
        except partitions.Busy as busy:
            raise CommandError(
                f"{busy}. Run it again; finished steps are kept.", returncode=TRY_AGAIN
            ) from busy

    def _show(self, span: Span, *, undo: bool) -> None:
        known = partitions.partitions()
        if undo:
            what = (
                f"join its {len(known)} partitions"
                if known
                else "undo an unfinished partitioning, if there is one"
            )
            self.stdout.write(f"Would {what}.")
        elif known:
            self.stdout.write(
                f"{partitions.TABLE} has {len(known)} partitions. Would create missing partitions in advance."
            )
        else:
            boundary = partition_table.plan(span=span, now=clock.now())
            partition_table.check_obstacles(boundary=boundary)
            self.stdout.write(
                f"Would partition {partitions.TABLE}, {span.name.lower()}. Messages created until "
                f"{boundary:%Y-%m-%d %H:%M} UTC stay in the first partition."
            )
