"""The report of a drill: timeline, recovery times, PASS or FAIL; as text, JSON and Markdown."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orderflow.chaos.assessment import recovery
from orderflow.chaos.assessment.copies import Copies
from orderflow.chaos.assessment.promises import Finding
from orderflow.chaos.assessment.recovery import NOT_RECOVERED, InjectedFault, Recovery
from orderflow.chaos.assessment.response_times import ResponseTimes
from orderflow.chaos.faults.schedule import Fault
from orderflow.chaos.load.client import Placed
from outbox.command_lines import counted
from outbox.verification import examination

RULES = (
    "lost",
    "no answer",
    "placed twice",
    "charged twice",
    "shipped twice",
    "SMS sent twice",
    "wrong amount",
    "not final",
    "notification not sent",
    "dead letter",
    "stuck",
    "counter wrong",
)
"""The rules that are always listed; others are listed only when they are broken."""

MOST_NAMED = 5
"""The number of copied deliveries that are listed; `chaos.json` lists all of them."""


@dataclasses.dataclass(kw_only=True)
class DrillReport:
    """The complete result of one drill."""

    seed: int
    broker: str
    command: str
    begun_at: float
    schedule: Sequence[Fault]
    left_out: Mapping[str, str]
    """The kinds of fault that could not be injected, and why."""
    injected: Sequence[InjectedFault]
    placed: Sequence[Placed]
    statuses: dict[str, int]
    settled_after: float | None
    busy_seconds: float
    """Seconds in which workers were processing a long queue; that time does not count as recovery."""
    answers: ResponseTimes
    recoveries: Sequence[Recovery]
    repeats: dict[str, int]
    copies: Copies | None
    """None: they were not counted, because the stack is not the drill's own."""
    findings: list[Finding]
    verification: examination.VerificationReport
    """The result of `verify --providers`."""

    @property
    def misses(self) -> list[str]:
        """The limits that were exceeded, each as a sentence."""
        missed = [
            f"{one.injected.fault} at {one.injected.began_at - self.begun_at:.1f} s: "
            f"{one.slowest_id} moved after {one.slowest:.1f} s, the limit is {one.injected.limit:.0f} s"
            for one in self.recoveries
            if one.is_too_slow
        ]
        if self.answers.outage_errors:
            errors = ", ".join(sorted(set(self.answers.outage_errors)))
            missed.append(f"errors while the broker was down: {errors}")
        if self.answers.are_too_slow:
            missed.append(
                f"responses took {_ms(self.answers.outage)} while the broker was down, "
                f"{_ms(self.answers.usual)} else"
            )
        if self.copies and self.copies.are_too_many:
            missed.append(
                f"{counted(self.copies.unexplained, 'copy', 'copies')} of deliveries that nothing explains: "
                f"{self._worst()}"
            )
        return missed

    @property
    def passed(self) -> bool:
        return not self.findings and not self.misses and self.verification.passed

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "passed": self.passed,
            "command": self.command,
            "seed": self.seed,
            "broker": self.broker,
            "begun_at": dt.datetime.fromtimestamp(self.begun_at, dt.UTC).isoformat(),
            "orders": {"placed": len(self.placed), "accepted": self._accepted(), "statuses": self.statuses},
            "tries": sum(len(one.tries) for one in self.placed),
            "settled_after_seconds": None if self.settled_after is None else round(self.settled_after, 1),
            "busy_seconds": round(self.busy_seconds, 1),
            "schedule": [fault.as_json() for fault in self.schedule],
            "left_out": dict(self.left_out),
            "timeline": [self._event(one) for one in self.injected],
            "recovery": recovery.by_kind(self.recoveries),
            "recoveries": [one.as_json() for one in self.recoveries],
            "answers": self.answers.as_json(),
            "repeats_at_providers_without_keys": self.repeats,
            "copies": self.copies.as_json() if self.copies else None,
            "findings": [finding.as_json() for finding in self.findings],
            "limits_missed": self.misses,
            "verification": self.verification.as_json(),
        }

    def lines(self) -> list[str]:
        """The end of the printed output: the tables, the verdict, and the command that repeats the drill."""
        return [
            "",
            *self._recovery_table(),
            "",
            *self._facts(),
            "",
            *self._verdict(),
            f"Repeat it: {self.command}",
        ]

    def as_markdown(self) -> str:
        """The report as Markdown."""
        begun = dt.datetime.fromtimestamp(self.begun_at, dt.UTC)
        rows = [
            f"| {one.began_at - self.begun_at:.1f} | {one.fault.kind} | {_description(one)} "
            f"| {one.recovered_at - one.began_at:.1f} |"
            for one in self.injected
        ]
        return "\n".join(
            [
                f"# Chaos drill, seed {self.seed}, {self.broker}: {'PASS' if self.passed else 'FAIL'}",
                "",
                f"{begun:%Y-%m-%d %H:%M:%S} UTC. Repeat it with `{self.command}`.",
                "",
                "## Timeline",
                "",
                "| second | fault | what was done | recovered after, s |",
                "|---|---|---|---|",
                *rows,
                "",
                "## Recovery",
                "",
                "```",
                *self._recovery_table(),
                "```",
                "",
                "## Totals",
                "",
                "```",
                *self._facts(),
                *self._verdict(),
                "```",
                "",
            ]
        )

    def write(self, folder: Path) -> None:
        """Write `chaos.json` and `chaos.md`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "chaos.json").write_text(json.dumps(self.as_json(), indent=1) + "\n")
        (folder / "chaos.md").write_text(self.as_markdown())

    def _event(self, one: InjectedFault) -> dict[str, Any]:
        return {
            "fault": one.fault.as_json(),
            "began": round(one.began_at - self.begun_at, 2),
            "ended": round(one.ended_at - self.begun_at, 2),
            "back": round(one.recovered_at - self.begun_at, 2),
            "did": one.did,
            "problem": one.problem,
        }

    def _accepted(self) -> int:
        return sum(one.is_accepted for one in self.placed)

    def _recovery_table(self) -> list[str]:
        lines = [f"{'Recovery, seconds':32} {'faults':>6} {'p50':>6} {'max':>6} {'limit':>6} {'total':>7}"]
        for kind, entry in recovery.by_kind(self.recoveries).items():
            limit = f"{entry['limit_seconds']:.0f}" if entry["limit_seconds"] else "-"
            lines.append(
                f"{kind:32} {entry['struck']:>6} {entry['p50_seconds']:>6} {entry['max_seconds']:>6} "
                f"{limit:>6} {entry['longest_seconds']:>7}"
            )
        return lines

    def _facts(self) -> list[str]:
        left_out = [f"left out: {kind}, which {why}" for kind, why in self.left_out.items()]
        nothing = [
            f"no effect: {one.fault} at {one.began_at - self.begun_at:.1f} s: {one.problem}"
            for one in self.injected
            if one.problem and not one.problem.startswith(NOT_RECOVERED)
        ]
        return [*left_out, *nothing, *self._counts()]

    def _counts(self) -> list[str]:
        tries = sum(len(one.tries) for one in self.placed)
        settled = (
            "not in time" if self.settled_after is None else f"{self.settled_after:.1f} s after the last order"
        )
        ends = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        answers = self.answers
        lines = [
            f"{counted(len(self.placed), 'order')} planned, {self._accepted()} accepted, "
            f"{counted(tries, 'request')}: {ends}",
            f"all work finished {settled}; a long queue was being processed for {self.busy_seconds:.0f} s",
            f"median response {_ms(answers.usual)} (p95 {_ms(answers.usual_p95)}); with the broker down "
            + (
                f"not judged: {answers.unjudged}"
                if answers.unjudged
                else f"{_ms(answers.outage)} (p95 {_ms(answers.outage_p95)}, {answers.outage_count} responses)"
            ),
            f"duplicates at providers without idempotency keys: {self.repeats['mails']} mails, "
            f"{self.repeats['pushes']} pushes",
            self._copies(),
        ]
        counts = dict.fromkeys(RULES, 0)
        for finding in self.findings:
            counts[finding.rule] = counts.get(finding.rule, 0) + 1
        lines.append(", ".join(f"{count} {rule}" for rule, count in counts.items()))
        examined = len(self.verification.findings)
        failed = self.verification.failed
        lines.append(f"verify --providers: {examined - len(failed)} of {examined} invariants hold")
        return lines

    def _copies(self) -> str:
        if self.copies is None:
            return "copies of deliveries: not counted, because the stack is not the drill's own"
        seen = self.copies
        line = (
            f"{seen.deliveries} deliveries, {seen.copies} copies: {seen.planned} more by planned waits, "
            f"{seen.explained} explained by faults, {seen.unexplained} unexplained"
        )
        return f"{line} ({self._worst()})" if seen.unexplained else line

    def _worst(self) -> str:
        assert self.copies
        return "; ".join(str(one) for one in self.copies.worst()[:MOST_NAMED])

    def _verdict(self) -> list[str]:
        if self.passed:
            return ["PASS"]
        problems = [str(finding) for finding in self.findings] + self.misses
        problems += [
            f"verify: {finding.invariant.sentence} {finding.verdict}: {finding.count} {', '.join(finding.ids)}"
            f"{finding.note}"
            for finding in self.verification.findings
            if finding.invariant.name in self.verification.failed
        ]
        return ["FAIL", *(f"  {problem}" for problem in problems)]


def _description(one: InjectedFault) -> str:
    return "; ".join(filter(None, (one.did, one.problem)))


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
