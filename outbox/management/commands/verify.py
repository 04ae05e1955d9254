"""`manage.py verify`"""

from __future__ import annotations

import dataclasses
import datetime as dt
import getpass
import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django_rich.management import RichCommand
from rich.table import Table
from rich.text import Text

from outbox.database import clock
from outbox.management import selection
from outbox.resilience import Permanent, Transient
from outbox.verification import examination, restores
from outbox.verification.examination import Finding, Repaired, Verdict, VerificationReport

MISUSED = 2

CLOCKS_DIFFER = dt.timedelta(hours=1)
"""How long before the end of the restored data the comparison with providers begins: that time is
approximate."""

STYLES = {Verdict.OK: "green", Verdict.NOT_COMPARABLE: "dim"}
"""The styles of verdicts; all others are red."""


class Command(RichCommand):
    help = (
        "Checks that all invariants hold: those of messages, deliveries and dead letters, and those that the "
        "project's apps have registered. Exits with 1 if one does not hold."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--format", choices=["table", "json"], default="table")
        parser.add_argument("--since", help="Only changes since then: 2h, 3d, or a time like 2026-11-24T08:00.")
        parser.add_argument("--providers", action="store_true", help="Compare with the providers' records too.")
        parser.add_argument(
            "--after-restore",
            metavar="TIME",
            help="A backup was restored whose data ends at this time. Notifies all processes, and compares "
            "with the providers since then. Repeating it has no effect.",
        )
        parser.add_argument("--repair", action="store_true", help="Show what can be repaired safely, and how.")
        parser.add_argument("--apply", action="store_true", help="With --repair: repair it. Needs --reason.")
        parser.add_argument("--reason", default="", help="The reason, which is stored with the repair.")

    def handle(self, *args: Any, **options: Any) -> None:
        _check(options)
        by = f"cli:{getpass.getuser()}"
        since = _since(options)
        if options["after_restore"]:
            since = _declare(_moment(options["after_restore"]), by=by)
        report = examination.run(since=since, providers=options["providers"] or bool(options["after_restore"]))
        examination.keep(report, by=by)
        repaired: list[Repaired] = []
        if options["repair"]:
            repaired = _repair(report, by, options)
        if options["format"] == "json":
            self.stdout.write(json.dumps(_as_json(report, repaired, options), indent=2))
        else:
            self._show(report, repaired, options)
        if not report.passed:
            raise CommandError(f"Invariants that do not hold: {', '.join(report.failed)}.", returncode=1)

    def _show(self, report: VerificationReport, repaired: list[Repaired], options: dict[str, Any]) -> None:
        self.console.print(_table(report))
        for finding in report.findings:
            if finding.command:
                self.console.print(Text(f"{finding.invariant.name}: {finding.command}"), soft_wrap=True)
        if options["repair"]:
            verb = "repaired" if options["apply"] else "would be repaired"
            self.console.print(Text(f"{len(repaired)} {verb}"))
            for one in repaired:
                self.console.print(Text(f"  {one.subject}: {one.what}"), soft_wrap=True)


def _check(options: dict[str, Any]) -> None:
    if options["since"] and options["after_restore"]:
        raise CommandError("--after-restore implies --since; omit --since.", returncode=MISUSED)
    if options["apply"] and not options["repair"]:
        raise CommandError("--apply needs --repair.", returncode=MISUSED)
    if options["apply"] and not options["reason"].strip():
        raise CommandError("Give a --reason; it is stored with the repair.", returncode=MISUSED)


def _since(options: dict[str, Any]) -> dt.datetime | None:
    return _moment(options["since"]) if options["since"] else None


def _declare(data_until: dt.datetime, *, by: str) -> dt.datetime:
    """Record the restore; all processes then look up at the providers what the database may have lost."""
    if data_until > clock.now():
        raise CommandError(
            "--after-restore must be in the past: it is the time at which the data ends.", returncode=MISUSED
        )
    restores.declare(data_until, by=by)
    return data_until - CLOCKS_DIFFER


def _moment(text: str) -> dt.datetime:
    try:
        return selection.moment(text)
    except CommandError as unreadable:
        raise CommandError(str(unreadable), returncode=MISUSED) from unreadable


def _repair(report: VerificationReport, by: str, options: dict[str, Any]) -> list[Repaired]:
    try:
        return examination.repair(report, by=by, reason=options["reason"], apply=options["apply"])
    except (Transient, Permanent) as failure:
        raise CommandError(f"A provider that must be queried first does not answer: {failure}") from failure


def _as_json(report: VerificationReport, repaired: list[Repaired], options: dict[str, Any]) -> dict[str, Any]:
    found = report.as_json()
    if options["repair"]:
        repairs = [dataclasses.asdict(one) for one in repaired]
        found |= {"repairs": repairs, "applied": options["apply"]}
    return found


def _table(report: VerificationReport) -> Table:
    held = sum(finding.verdict is Verdict.OK for finding in report.findings)
    title = f"{held} of {len(report.findings)} invariants hold ({report.took.total_seconds():.1f} s)"
    table = Table("invariant", "verdict", "offending", title=title)
    for finding in report.findings:
        verdict = Text(str(finding.verdict), style=STYLES.get(finding.verdict, "bold red"))
        table.add_row(
            Text(f"{finding.invariant.name}: {finding.invariant.sentence}"), verdict, _offending(finding)
        )
    return table


def _offending(finding: Finding) -> Text:
    more = finding.count - len(finding.ids)
    offending = ", ".join(finding.ids) + (f" and {more} more" if more > 0 else "")
    return Text(offending or finding.note)
