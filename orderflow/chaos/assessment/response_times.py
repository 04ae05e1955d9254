"""Response times of the API: normally, and while the broker was down."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from orderflow.chaos.assessment.recovery import InjectedFault
from orderflow.chaos.load.client import Placed, Try
from outbox.command_lines import counted

MOST_TIMES = 2.0
"""By which factor the median response time may rise while the broker is down."""

FLOOR = 0.1
"""Seconds below which no response counts as slow: on a machine that is busy starting processes, a median of
20 ms doubles for reasons that are unrelated to the broker."""

FEWEST = 5
"""With fewer responses than this a median is not judged."""

HARMLESS = ("pause-worker", "clock-jump", "clock-skew", "slow-channel")
"""Faults that do not slow the API down: they touch no server and no processor."""

SETTLES_WITHIN = 2.0
"""Seconds after a fault that still count as part of it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResponseTimes:
    """Medians and p95 in seconds, of first requests only; None where there were too few."""

    usual: float | None
    usual_p95: float | None
    outage: float | None
    outage_p95: float | None
    outage_count: int
    outage_errors: tuple[str, ...]
    unjudged: str = ""
    """Why the response times during outages are not judged; empty if they are."""

    @property
    def are_too_slow(self) -> bool:
        if self.usual is None or self.outage is None:
            return False
        return self.outage > max(MOST_TIMES * self.usual, FLOOR)

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def judge(placed: Sequence[Placed], injected: Sequence[InjectedFault]) -> ResponseTimes:
    """Compare the responses during outages of the broker alone with those while no fault was in force."""
    real = [one for one in injected if not one.problem and one.fault.kind not in HARMLESS]
    outages = [one for one in real if one.fault.kind == "broker-down"]
    others = [one for one in real if one.fault.kind != "broker-down"]
    first = [one.tries[0] for one in placed if one.tries]
    usual = [one for one in first if not _during(one, real)]
    in_outage = [one for one in first if _during(one, outages, margin=0.0)]
    # Another fault at the same time, such as a process start, slows responses down for its own reasons.
    alone = [one for one in in_outage if not _during(one, others, margin=0.0)]
    return ResponseTimes(
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
            f"{alone} of {counted(in_outage, 'response')} came while no other fault was in force; "
            f"{FEWEST} are needed"
        )
    if usual < FEWEST:
        return f"{counted(usual, 'response')} came while no fault was in force; {FEWEST} are needed"
    return ""


def _during(one: Try, injected: Sequence[InjectedFault], *, margin: float = SETTLES_WITHIN) -> bool:
    return any(fault.began_at - one.seconds <= one.at <= fault.recovered_at + margin for fault in injected)


def _median(tries: Sequence[Try]) -> float | None:
    return statistics.median(one.seconds for one in tries) if len(tries) >= FEWEST else None


def _p95(tries: Sequence[Try]) -> float | None:
    if len(tries) < FEWEST:
        return None
    return statistics.quantiles((one.seconds for one in tries), n=20, method="inclusive")[-1]
