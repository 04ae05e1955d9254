"""How fast the API answered, usually and while the broker was away."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from orderflow.chaos.assessment.recovery import Struck
from orderflow.chaos.load.client import Placed, Try
from outbox.command_lines import counted

MOST_TIMES = 2.0
"""How much longer than usual the median answer may take while the broker is down."""

FLOOR = 0.1
"""Seconds under which no answer counts as slow: on a machine that is busy starting processes, a median of
20 ms doubles for reasons that have nothing to do with the broker."""

FEWEST = 5
"""Fewer answers than this have no median worth judging."""

SILENT = ("pause-worker", "clock-jump", "clock-skew", "slow-channel")
"""Faults that cost the API nothing: they touch no server and no processor."""

SETTLES_WITHIN = 2.0
"""Seconds after a fault that still count as its time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """Medians and p95 in seconds, of first tries only; None where there were too few."""

    usual: float | None
    usual_p95: float | None
    outage: float | None
    outage_p95: float | None
    outage_count: int
    outage_errors: tuple[str, ...]
    unjudged: str = ""
    """Why the answers during outages are not compared with the usual ones; empty if they are."""

    @property
    def are_too_slow(self) -> bool:
        if self.usual is None or self.outage is None:
            return False
        return self.outage > max(MOST_TIMES * self.usual, FLOOR)

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def judge(placed: Sequence[Placed], struck: Sequence[Struck]) -> Answers:
    """Compare the answers during outages of the broker alone with those while nothing was wrong."""
    real = [one for one in struck if not one.problem and one.fault.kind not in SILENT]
    outages = [one for one in real if one.fault.kind == "broker-down"]
    others = [one for one in real if one.fault.kind != "broker-down"]
    first = [one.tries[0] for one in placed if one.tries]
    usual = [one for one in first if not _during(one, real)]
    in_outage = [one for one in first if _during(one, outages, margin=0.0)]
    # What another fault costs at the same time, such as the start of a process, is not the broker's fault.
    alone = [one for one in in_outage if not _during(one, others, margin=0.0)]
    return Answers(
        usual=_median(usual),
        usual_p95=_p95(usual),
        outage=_median(alone),
        outage_p95=_p95(alone),
        outage_count=len(alone),
        outage_errors=tuple(one.error or str(one.status) for one in alone if one.status != 201),
        unjudged=_why_unjudged(len(usual), len(in_outage), len(alone), were_outages=bool(outages)),
    )


def _why_unjudged(usual: int, in_outage: int, alone: int, *, were_outages: bool) -> str:
    if not were_outages:
        return "the broker was never down"
    if alone < FEWEST:
        return (
            f"{alone} of {counted(in_outage, 'answer')} came while nothing else was wrong; {FEWEST} are needed"
        )
    if usual < FEWEST:
        return f"{counted(usual, 'answer')} came while nothing was wrong; {FEWEST} are needed"
    return ""


def _during(one: Try, struck: Sequence[Struck], *, margin: float = SETTLES_WITHIN) -> bool:
    return any(fault.began_at - one.seconds <= one.at <= fault.back_at + margin for fault in struck)


def _median(tries: Sequence[Try]) -> float | None:
    return statistics.median(one.seconds for one in tries) if len(tries) >= FEWEST else None


def _p95(tries: Sequence[Try]) -> float | None:
    if len(tries) < FEWEST:
        return None
    return statistics.quantiles((one.seconds for one in tries), n=20, method="inclusive")[-1]
