"""The matrix: a healthy time without alerts, then one fault after the other, while orders are placed."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from orderflow.alerts import catalogue
from orderflow.alerts.matrix import faults, mitigation
from orderflow.alerts.matrix.cases import Case
from orderflow.alerts.matrix.faults import Target
from orderflow.alerts.matrix.watch import POLL, Watch
from orderflow.chaos.load import planned_orders
from orderflow.chaos.load.planned_orders import PlannedOrder

CLEARS_WITHIN = 300.0
"""Seconds, before they are shortened, after which the commands of a runbook must have cleared all alerts."""

SETTLES = 60.0
"""Seconds, before they are shortened, for which a fault goes on after its alerts: others may follow."""

UNSHORTENED = 45.0
"""Seconds that no factor shortens: the next probe of a breaker, the start of a process, a reconnection."""

CALM_WITHIN = 90.0
"""Seconds for the alerts of a start to end."""


@dataclasses.dataclass(kw_only=True)
class Row:
    """One alert of a fault, with the seconds until it fires, is told and, after the mitigation, ends."""

    alert: str
    is_required: bool
    fired_after: float
    told_after: float | None = None
    """None if Alertmanager told nobody, because the alert of the cause inhibits it."""
    cleared_after: float | None = None


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """One fault: its alerts, the commands that were run, and what was not as expected."""

    case: Case
    rows: list[Row] = dataclasses.field(default_factory=list)
    commands: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(kw_only=True)
class Result:
    """The whole run."""

    factor: float
    rate: float
    label: str
    healthy_seconds: float
    placed: int
    outcomes: list[Outcome]
    problems: list[str]
    """Of the healthy time, and of the observers."""

    @property
    def passed(self) -> bool:
        return not self.problems and not any(outcome.problems for outcome in self.outcomes)


class Load:
    """Places orders all the time, in a thread of its own, until it is stopped."""

    def __init__(self, target: Target, *, rate: float) -> None:
        self._target, self._rate = target, rate
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._place, name="load")
        self.placed = 0

    def __enter__(self) -> Load:
        planned_orders.stock(100_000)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _place(self) -> None:
        self._target.client.place_all(self._endless(), rate=self._rate, until=float("inf"))

    def _endless(self) -> Iterator[PlannedOrder]:
        run = f"alerts-{time.time():.0f}"
        for batch in itertools.count():
            for planned in planned_orders.draw(100, seed=batch, run=f"{run}-{batch}"):
                if self._stopping.is_set():
                    return
                self.placed += 1
                yield planned


class Matrix:
    """
    Runs cases against a target.

    `write` receives what happens, as lines; `keep` the result after each fault, because the whole takes long.
    """

    def __init__(
        self,
        target: Target,
        watch: Watch,
        *,
        factor: float,
        environment: Mapping[str, str],
        write: Callable[[str], Any],
        keep: Callable[[Result], None],
    ) -> None:
        self._target, self._watch, self._factor = target, watch, factor
        self._environment = environment
        self._began, self._write, self._keep = time.time(), write, keep

    def run(self, cases: Sequence[Case], *, healthy: float, rate: float, label: str) -> Result:
        """Run everything; the result says what was not as expected."""
        result = Result(
            factor=self._factor,
            rate=rate,
            label=label,
            healthy_seconds=healthy * self._factor,
            placed=0,
            outcomes=[],
            problems=[],
        )
        with Load(self._target, rate=rate) as load:
            if not self._until(lambda: self._is_observed() and not self._watch.since, CALM_WITHIN):
                result.problems.append(f"never calm after the start: {self._names()}")
            result.problems += self._stay_healthy(result.healthy_seconds)
            for case in cases:
                outcome = self._prove(case)
                result.outcomes.append(outcome)
                for problem in outcome.problems:
                    self._log(f"  ! {problem}")
                result.placed = load.placed
                self._keep(result)
        result.problems += self._watch.failures[:3]
        return result

    def _is_observed(self) -> bool:
        """Whether all rules have been evaluated since the exporter was read first."""
        return bool(self._watch.query('orderflow_up{component="database"} == 1'))

    def _stay_healthy(self, seconds: float) -> list[str]:
        self._log(f"healthy for {seconds:.0f} s")
        until, seen = time.time() + seconds, set[str]()
        while time.time() < until:
            seen |= {str(fired) for fired in list(self._watch.since)}
            time.sleep(POLL)
        return [f"{name} fired in the healthy time" for name in sorted(seen)]

    def _prove(self, case: Case) -> Outcome:
        outcome = Outcome(case=case)
        self._log(f"{case.name}: {case.fault}")
        faults.verify()  # as beat does every hour, which no factor shortens
        told, began = len(self._watch.told), time.time()
        end = case.begin(self._target)
        try:
            self._wait_for_alerts(case, outcome)
            time.sleep(SETTLES * self._factor)
        finally:
            mitigated = time.time()
            if case.ends_by_itself:
                end()
        try:
            self._follow_runbook(case, outcome)
        except mitigation.NotPossible as problem:
            outcome.problems.append(str(problem))
        within = CLEARS_WITHIN * self._factor + UNSHORTENED
        if not self._until(lambda: not self._watch.since, within):
            outcome.problems.append(f"not cleared within {within:.0f} s: {self._names()}")
            end()
            self._until(lambda: not self._watch.since, within)
        self._judge(case, outcome, began=began, mitigated=mitigated, told=told)
        return outcome

    def _wait_for_alerts(self, case: Case, outcome: Outcome) -> None:
        within = case.within * self._factor + case.unshortened
        required = set(case.raises)
        if not self._until(lambda: required <= self._firing(), within):
            missing = ", ".join(sorted(required - self._firing()))
            outcome.problems.append(f"not within {within:.0f} s: {missing}")

    def _follow_runbook(self, case: Case, outcome: Outcome) -> None:
        for command in mitigation.commands(case.runbook):
            self._log(f"  $ {command}")
            outcome.commands.append(command)
            mitigation.run(command, environment=self._environment, start=self._target.start_services)

    def _judge(self, case: Case, outcome: Outcome, *, began: float, mitigated: float, told: int) -> None:
        spans = [span for span in self._watch.spans if span.begin >= began]
        messages = [one for one in self._watch.told[told:] if not one.is_resolved]
        names = sorted({span.fired.name for span in spans}, key=catalogue.NAMES.index)
        for name in names:
            first = [one.at for one in messages if one.fired.name == name]
            ends = [span.end for span in spans if span.fired.name == name]
            ended = [end for end in ends if end is not None]
            outcome.rows.append(
                Row(
                    alert=name,
                    is_required=name in case.raises,
                    fired_after=min(span.begin for span in spans if span.fired.name == name) - began,
                    told_after=min(first) - began if first else None,
                    cleared_after=max(0.0, max(ended) - mitigated) if len(ended) == len(ends) else None,
                )
            )
        outcome.problems += [f"{name} is not expected" for name in names if name not in case.expected]
        inhibited = {name for rule in catalogue.INHIBITIONS if rule.source in names for name in rule.targets}
        silent = {row.alert for row in outcome.rows if row.told_after is None} & set(case.raises) - inhibited
        outcome.problems += [f"nobody was told of {name}" for name in sorted(silent)]
        for row in outcome.rows:
            cleared = f"{row.cleared_after:.1f} s" if row.cleared_after is not None else "never"
            self._log(f"  {row.alert}: fired after {row.fired_after:.1f} s, cleared {cleared} after mitigation")

    def _firing(self) -> set[str]:
        return {fired.name for fired in list(self._watch.since)}

    def _names(self) -> str:
        return ", ".join(sorted(str(fired) for fired in list(self._watch.since))) or "nothing fires"

    @staticmethod
    def _until(condition: Callable[[], bool], within: float) -> bool:
        end = time.time() + within
        while not condition():
            if time.time() > end:
                return False
            time.sleep(POLL)
        return True

    def _log(self, text: str) -> None:
        self._write(f"{time.time() - self._began:6.1f} s  {text}")
