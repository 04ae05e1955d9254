"""
Examines the invariants that apps have registered (`catalogue`), and applies their repairs.

All queries of a run read one snapshot of the database and write nothing. Providers are called between
transactions, before the snapshot or after it. Repairs check again under a lock.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import time
from collections.abc import Sequence
from typing import Any

from django.db import OperationalError, connection, transaction

from outbox import telemetry
from outbox.command_lines import as_typed_here
from outbox.conf import settings
from outbox.database import storable
from outbox.models import RepairRecord, Verification
from outbox.resilience import Permanent, Transient
from outbox.verification import catalogue
from outbox.verification.catalogue import Invariant, NotComparable, OutOfTime, Row, Snapshot

STATEMENT_TIMEOUT = dt.timedelta(seconds=15)
"""How long one query may take: half of the limit for other statements (see settings)."""

RUN_WITHIN = dt.timedelta(seconds=90)
"""How long a run may take, including calls to providers. A snapshot of this age does not hinder vacuum."""

SHOWN = 20
"""Offending ids that a finding shows."""

REPAIRED_AT_ONCE = 500
"""Offending ids that one run repairs; the next run finds the rest."""

LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)
"""A time before all rows."""

LONGEST_NAME = 200
"""Maximum length of the name of the person who repairs, in characters; see the models."""

QUERY_CANCELED = "57014"
"""SQLSTATE of a statement that ran into its timeout."""


class ReasonMissing(Exception):
    """A repair needs a reason."""


class Verdict(enum.StrEnum):
    """The result for one invariant."""

    OK = "ok"
    VIOLATED = "violated"
    TIMED_OUT = "timed out"
    UNANSWERED = "unanswered"
    NOT_COMPARABLE = "not comparable"


PASSING = frozenset({Verdict.OK, Verdict.NOT_COMPARABLE})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """The result for one invariant. `offending` is limited, `count` is not."""

    invariant: Invariant
    verdict: Verdict
    count: int = 0
    offending: Sequence[str] = ()
    note: str = ""

    @property
    def ids(self) -> list[str]:
        """The first offending ids."""
        return list(self.offending[:SHOWN])

    @property
    def command(self) -> str:
        """The next command to type; empty if there is nothing to do."""
        if self.verdict is not Verdict.VIOLATED:
            return ""
        return as_typed_here(self.invariant.command.replace("{id}", self.ids[0]))

    def as_json(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        return {
            "name": self.invariant.name,
            "sentence": self.invariant.sentence,
            "verdict": str(self.verdict),
            "count": self.count,
            "ids": self.ids,
            "command": self.command,
            "repair": self.invariant.repair.what if self.count and self.invariant.repair else "",
            "note": self.note,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """The result of one run."""

    ran_at: dt.datetime
    took: dt.timedelta
    since: dt.datetime | None
    providers: bool
    findings: Sequence[Finding]

    @property
    def passed(self) -> bool:
        """Whether every invariant was examined completely and holds."""
        return all(finding.verdict in PASSING for finding in self.findings)

    @property
    def failed(self) -> list[str]:
        """The names of the invariants that do not hold or could not be examined."""
        return [finding.invariant.name for finding in self.findings if finding.verdict not in PASSING]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "passed": self.passed,
            "ran_at": self.ran_at.isoformat(),
            "took_seconds": round(self.took.total_seconds(), 3),
            "since": self.since.isoformat() if self.since else None,
            "providers": self.providers,
            "findings": [finding.as_json() for finding in self.findings],
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repaired:
    """What one repair did, or would do in a dry run."""

    invariant: str
    subject: str
    what: str


def run(
    *,
    since: dt.datetime | None = None,
    providers: bool = False,
    statement_timeout: dt.timedelta = STATEMENT_TIMEOUT,
    within: dt.timedelta = RUN_WITHIN,
) -> VerificationReport:
    """
    Examine all invariants in one snapshot; with `providers`, also compare with the providers' own records.

    With `since`, only changes since then count. A run is safe on a live system: it is read-only, and it is
    limited by `statement_timeout` for each query and by `within` in total. An invariant that runs out of time
    has that verdict and does not pass. Inside a transaction of the caller, the run reads what that transaction
    sees.
    """
    began = time.monotonic()
    deadline = began + within.total_seconds()
    chosen = [invariant for invariant in catalogue.invariants() if providers or not invariant.needs_providers]
    values = {ask: dict(ask()) for ask in {invariant.values for invariant in chosen}}
    has_own_transaction = not connection.in_atomic_block
    with transaction.atomic(), connection.cursor() as cursor:
        if has_own_transaction:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute("SELECT now()")
        snapshot = Snapshot(since=since, at=cursor.fetchone()[0], deadline=deadline)
        read = [
            _read(cursor, invariant, snapshot, values[invariant.values], statement_timeout)
            for invariant in chosen
        ]
    findings = [
        _compared(invariant, found, snapshot) if isinstance(found, list) else found
        for invariant, found in zip(chosen, read, strict=True)
    ]
    report = VerificationReport(
        ran_at=snapshot.at,
        took=dt.timedelta(seconds=time.monotonic() - began),
        since=since,
        providers=providers,
        findings=findings,
    )
    telemetry.emit(
        "verification.passed" if report.passed else "verification.failed",
        failed=report.failed,
        providers=providers,
        seconds=report.took.total_seconds(),
    )
    return report


def keep(report: VerificationReport, *, by: str) -> Verification:
    """Store a report, for the admin."""
    return Verification.objects.create(
        ran_at=report.ran_at,
        took=report.took,
        since=report.since,
        providers=report.providers,
        passed=report.passed,
        by=by,
        findings=report.as_json()["findings"],
    )


def repair(
    report: VerificationReport, *, by: str = "", reason: str = "", apply: bool = False
) -> list[Repaired]:
    """
    Repair the violations in `report` that can be repaired safely; without `apply` only describe the repairs.

    Each repair is a transaction that checks again under a lock and records who made it and why.

    Raises:
        ReasonMissing: if `apply` is set and `reason` is blank.
        outbox.resilience.Transient: if a provider that must be queried first does not answer.
        outbox.resilience.Permanent: if it refuses the query.
    """
    if apply and not reason.strip():
        raise ReasonMissing("give a reason: it is stored with the repair")
    by, reason = storable.text(by, longest=LONGEST_NAME), storable.text(reason.strip())
    done = []
    for finding in report.findings:
        if finding.verdict is Verdict.VIOLATED and finding.invariant.repair:
            for subject in finding.offending:
                if what := _repair(finding.invariant, subject, by=by, reason=reason, apply=apply):
                    done.append(Repaired(invariant=finding.invariant.name, subject=subject, what=what))
    return done


def _read(
    cursor: Any, invariant: Invariant, snapshot: Snapshot, values: dict[str, Any], timeout: dt.timedelta
) -> Finding | list[Row]:
    """The finding of an invariant; for one with a comparison, the rows to compare."""
    left = snapshot.deadline - time.monotonic()
    if left <= 0:
        return Finding(invariant=invariant, verdict=Verdict.TIMED_OUT, note="the run was out of time")
    retention = dt.timedelta(days=settings.RETENTION_DAYS)
    parameters = {
        "since": snapshot.since or LONG_AGO,
        "is_partial": bool(snapshot.since),
        "retained": snapshot.at - retention,
        **values,
    }
    # The savepoint is always rolled back, which resets the timeout; nothing else was changed.
    cursor.execute("SAVEPOINT invariant")
    try:
        cursor.execute(
            "SELECT set_config('statement_timeout', %s, true)",
            [f"{max(1, round(min(timeout.total_seconds(), left) * 1000))}ms"],
        )
        if invariant.compare:
            cursor.execute(invariant.sql, parameters)
            return _rows(cursor)
        cursor.execute(
            f"SELECT count(*) OVER (), violations.* FROM ({invariant.sql}) AS violations "  # noqa: S608
            f"LIMIT {REPAIRED_AT_ONCE}",
            parameters,
        )
        found = cursor.fetchall()
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != QUERY_CANCELED:
            raise
        return Finding(invariant=invariant, verdict=Verdict.TIMED_OUT, note="the query was out of time")
    finally:
        cursor.execute("ROLLBACK TO SAVEPOINT invariant")
        cursor.execute("RELEASE SAVEPOINT invariant")
    return _finding(invariant, [str(row[1]) for row in found], count=found[0][0] if found else 0)


def _rows(cursor: Any) -> list[Row]:
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _compared(invariant: Invariant, rows: list[Row], snapshot: Snapshot) -> Finding:
    assert invariant.compare is not None
    if time.monotonic() > snapshot.deadline:
        return Finding(invariant=invariant, verdict=Verdict.TIMED_OUT, note="the run was out of time")
    try:
        offending = [storable.note(subject) for subject in invariant.compare(rows, snapshot)]
    except NotComparable as note:
        return Finding(invariant=invariant, verdict=Verdict.NOT_COMPARABLE, note=storable.note(note))
    except OutOfTime:
        return Finding(invariant=invariant, verdict=Verdict.TIMED_OUT, note="the list was too long")
    except (Transient, Permanent) as failure:
        return Finding(invariant=invariant, verdict=Verdict.UNANSWERED, note=storable.note(failure))
    return _finding(invariant, offending, count=len(offending))


def _finding(invariant: Invariant, offending: list[str], *, count: int) -> Finding:
    return Finding(
        invariant=invariant,
        verdict=Verdict.VIOLATED if offending else Verdict.OK,
        count=count,
        offending=offending[:REPAIRED_AT_ONCE],
    )


def _repair(invariant: Invariant, subject: str, *, by: str, reason: str, apply: bool) -> str:
    assert invariant.repair is not None
    results = [invariant.repair.query(subject)] if invariant.repair.query else []
    with transaction.atomic():
        what = invariant.repair.apply(subject, *results)
        if what and apply:
            RepairRecord.objects.create(
                invariant=invariant.name, subject=subject, what=what, repaired_by=by, reason=reason
            )
            transaction.on_commit(
                lambda: telemetry.emit(
                    "verification.repaired", invariant=invariant.name, subject=subject, what=what, by=by
                )
            )
        else:
            transaction.set_rollback(True)
    return what
