"""Rounds: contestants take turns on the same servers, and each is compared with its baseline round by round."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence


class Incorrect(Exception):
    """A contestant's result is wrong: an order unfinished, a card charged twice, a message sent twice."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One contestant's result in one round: `value` in the scenario's unit; costs are divided by `units`."""

    value: float
    units: int = 1
    cpu: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Processor seconds by process."""
    counts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Other counts, already per unit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way to do the scenario's work. `baseline` names the contestant it is compared with."""

    name: str
    run: Callable[[], Sample]
    baseline: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """All rounds of one contestant. `ratio` is the median of each round's ratio; None: it has no baseline."""

    name: str
    median: float
    low: float
    high: float
    baseline: str = ""
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    cpu: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Milliseconds of processor per unit, by process, medians."""
    counts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    values: Sequence[float] = ()
    costs: Sequence[float] = ()
    """Milliseconds of processor per unit of all processes together, in each round."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """One requirement, the measured value, and whether it is met. Reported, never asserted."""

    requirement: str
    measured: str
    met: bool


@dataclasses.dataclass(kw_only=True)
class Result:
    """The result of a scenario. `skipped` is the reason why it could not run."""

    scenario: str
    unit: str
    rows: list[Row] = dataclasses.field(default_factory=list)
    verdicts: list[Verdict] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
    """Counts over their budget, which do not depend on the machine. They end the run with an error."""
    skipped: str = ""

    def row(self, name: str) -> Row:
        """The row of one contestant."""
        return next(row for row in self.rows if row.name == name)

    def ratio(self, name: str, baseline: str) -> float:
        """The median of the ratios of two contestants within each round."""
        pairs = zip(self.row(name).values, self.row(baseline).values, strict=False)
        return statistics.median([value / other for value, other in pairs if other])

    def cost_ratio(self, name: str, baseline: str) -> float:
        """The median of the ratios of two contestants' processor times per unit within each round."""
        pairs = zip(self.row(name).costs, self.row(baseline).costs, strict=False)
        return statistics.median([cost / other for cost, other in pairs if other])

    def judge(
        self, requirement: str, measured: float, *, least: float | None = None, most: float | None = None
    ) -> None:
        """Record whether the measured value meets the requirement."""
        met = (least is None or measured >= least) and (most is None or measured <= most)
        self.verdicts.append(Verdict(requirement=requirement, measured=figure(measured), met=met))


def alternate(
    contestants: Sequence[Contestant], *, rounds: int, say: Callable[[str], None] = lambda text: None
) -> list[Row]:
    """
    Run the contestants in turns, A B A B A B, and summarise.

    Raises:
        Incorrect: if the result of one of them is wrong.
    """
    samples: dict[str, list[Sample]] = {contestant.name: [] for contestant in contestants}
    for number in range(1, rounds + 1):
        for contestant in contestants:
            sample = contestant.run()
            samples[contestant.name].append(sample)
            say(f"round {number}: {contestant.name} {figure(sample.value)}")
    return [
        summarise(
            contestant.name, samples[contestant.name], contestant.baseline, samples.get(contestant.baseline)
        )
        for contestant in contestants
    ]


def summarise(
    name: str, samples: Sequence[Sample], baseline: str = "", against: Sequence[Sample] | None = None
) -> Row:
    """Return one row from all rounds of a contestant and, round by round, of its baseline."""
    values = [sample.value for sample in samples]
    ratios = [
        sample.value / other.value for sample, other in zip(samples, against or (), strict=False) if other.value
    ]
    return Row(
        name=name,
        median=statistics.median(values),
        low=min(values),
        high=max(values),
        baseline=baseline,
        ratio=statistics.median(ratios) if ratios else None,
        ratio_low=min(ratios) if ratios else None,
        ratio_high=max(ratios) if ratios else None,
        cpu=_medians([{key: 1000 * used / s.units for key, used in s.cpu.items()} for s in samples]),
        counts=_medians([sample.counts for sample in samples]),
        values=values,
        costs=[1000 * sum(sample.cpu.values()) / sample.units for sample in samples],
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is at least as large as this share of the values."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def figure(value: float) -> str:
    """Format a number for display: three significant digits, thousands separated."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _medians(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for sample in samples for name in sample)
    return {name: statistics.median([sample.get(name, 0.0) for sample in samples]) for name in names}
