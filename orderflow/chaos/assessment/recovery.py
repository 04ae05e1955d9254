"""
How recovery is measured, and what it may cost.

A fault *struck* something that was under way: an order between two of its moves, or a message on its way to a
customer. What matters to a customer is the slowest of these. So the recovery time of a fault is

    from the moment that counts for its kind (see `FROM`)
    to the next move of the slowest thing that was under way at that moment,
    less the time in which another fault was in force,
    less what it waited for a provider on purpose,
    less the time, up to the limit for that, in which it was resumed after a broker had lost all messages,
    less the time in which a long queue was being worked off.

The later clauses are needed because drills let faults overlap: an order that waits for a dead worker while the
database is down waits for the database; an open breaker, or a charge that cannot be looked up yet, is waited
for by design; and how fast a queue gets shorter is a matter of capacity. `first` is the quickest thing's: when
the system was seen to work. `longest` is the slowest thing's without these clauses: what a customer saw,
whoever was to blame.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from orderflow.chaos.faults.schedule import Fault

DEATH, BACK = "death", "back"

FROM = {
    # A dead worker is not waited for: somebody else is to take its work over.
    "kill-worker": DEATH,
    "kill-child": DEATH,
    # The other nodes of the cluster go on.
    "kill-leader": DEATH,
}
"""From when recovery counts: from the death, or else from when what was broken was back."""

RESUMED_WITHIN, NOTIFICATIONS_RESUMED_WITHIN = 60.0, 120.0
"""Seconds in which work that a broker has lost is resumed: until a probe has come back, and what it passed had
its time (see `outbox.relay.probes`); notifications stand in longer queues."""

STOP_SWEEPS = ("kill-relay", "kill-beat", "broker-down", "broker-restart", "kill-leader", "db-restart")
LONGEST_BREAK = 10.0
"""
Seconds without a sweep after which probes prove nothing that were sent before (see `outbox.relay.probes`).
"""

LIMITS = {
    # The lease of a step (12 s), one round of the sweep (2 s), and a second to work the order off.
    "kill-worker": 15.0,
    "kill-child": 15.0,
    "kill-relay": 10.0,
    "kill-beat": 10.0,
    "broker-down": 10.0,
    "broker-restart": 10.0,
    # An election, and the reconnecting of all who were connected to that node.
    "kill-leader": 15.0,
    "db-restart": 10.0,
    "broker-forgets": RESUMED_WITHIN,
}
"""Seconds that recovery may take. The other kinds are measured and not judged."""

NOTIFICATION_LIMIT = 75.0
"""
Seconds, instead of `LIMITS`, for deaths in the pools that send notifications. A notification is held for 25 s,
longer than its task's hard limit, since a mail server cannot be asked what it has taken; Redis hands an
unacknowledged message out again after 32 s; and a message that finds another's lease waits for its end. What
the broker has lost is found by probes, some 50 s later.
"""

CHANNELS = ("email", "sms", "push")
AT_PROVIDERS = ("slow-channel", "wrong-credentials", "provider-drop-after")
AT_A_CHANNEL = ("kill-worker", "kill-child", *AT_PROVIDERS)
"""The faults that may strike the notifications of one channel alone."""


NOT_BACK = "not back"
"""How the problem of a fault begins that struck, and whose victim did not come back."""


@dataclasses.dataclass(kw_only=True)
class Struck:
    """A fault that was injected: when it began, ended, and was back (Unix times), and what was done."""

    fault: Fault
    began_at: float
    ended_at: float
    back_at: float
    did: str = ""
    problem: str = ""
    """Why it did not strike; empty when it did."""

    @property
    def counts_from(self) -> float:
        return self.began_at if FROM.get(self.fault.kind) == DEATH else self.back_at

    @property
    def in_force(self) -> tuple[float, float]:
        return self.began_at, self.back_at

    @property
    def concerns(self) -> str:
        """The channel whose notifications it struck; empty when it struck orders."""
        return self.fault.target if self.fault.target in CHANNELS and self.fault.kind in AT_A_CHANNEL else ""

    def excuses(self, other: Struck) -> bool:
        """
        Whether `other` may take longer while this fault is in force.

        A clock that is wrong excuses nothing, and what is wrong with a channel explains nothing but that.
        """
        if self is other or self.problem or self.fault.kind == "clock-skew":
            return False
        return self.fault.kind not in AT_PROVIDERS or self.concerns in ("", other.concerns)

    @property
    def loses_everything(self) -> bool:
        """Whether all that was under way has to be found missing, whatever happens to it meanwhile."""
        return self.fault.kind == "broker-forgets" and not self.problem

    @property
    def stops_sweeps(self) -> bool:
        """Whether nobody could look for what is lost, for so long that the search begins anew."""
        return self.fault.kind in STOP_SWEEPS and self.back_at - self.began_at > LONGEST_BREAK

    @property
    def limit(self) -> float | None:
        """Seconds its recovery may take; None: not judged."""
        limit = LIMITS.get(self.fault.kind)
        return NOTIFICATION_LIMIT if limit and self.concerns else limit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recovery:
    """How long things that were under way waited for their next move, in seconds."""

    struck: Struck
    affected: int
    first: float = 0.0
    slowest: float = 0.0
    slowest_id: str = ""
    longest: float = 0.0
    stuck: tuple[str, ...] = ()
    """What never moved again; the findings name it, since no fault can be said to be the cause."""

    @property
    def is_too_slow(self) -> bool:
        limit = self.struck.limit
        return limit is not None and self.slowest > limit

    def as_json(self) -> dict[str, Any]:
        return {
            "fault": self.struck.fault.as_json(),
            "affected": self.affected,
            "first_seconds": round(self.first, 2),
            "slowest_seconds": round(self.slowest, 2),
            "slowest_id": self.slowest_id,
            "longest_seconds": round(self.longest, 2),
            "limit_seconds": self.struck.limit,
            "stuck": list(self.stuck),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Life:
    """
    The moves of one thing (Unix times, ascending), and whether the last one was its end.

    `waits` are the spans in which it waited for a provider on purpose.
    """

    moves: Sequence[float]
    is_over: bool
    waits: Sequence[tuple[float, float]] = ()


def measure(
    struck: Struck,
    lives: Mapping[str, Life],
    others: Sequence[Struck],
    *,
    busy: Sequence[tuple[float, float]] = (),
) -> Recovery:
    """
    Measure one fault by what was under way when its time began to count.

    `busy` are the spans in which a long queue was being worked off.
    """
    since = struck.counts_from
    troubles = [other.in_force for other in others if other.excuses(struck)]
    losses = [
        _until_resumed(
            other, others, busy, within=NOTIFICATIONS_RESUMED_WITHIN if struck.concerns else RESUMED_WITHIN
        )
        for other in others
        if other is not struck and other.loses_everything
    ]
    waits: list[tuple[float, str]] = []
    stuck: list[str] = []
    longest = 0.0
    for name, life in lives.items():
        if not life.moves or life.moves[0] > since:
            continue
        following = next((at for at in life.moves if at > since), None)
        if following is not None:
            longest = max(longest, following - since)
            excused = [*troubles, *life.waits, *busy, *_resumed(life, losses)]
            waits.append((following - since - _covered(since, following, excused), name))
        elif not life.is_over:
            stuck.append(name)
    slowest, name = max(waits, default=(0.0, ""))
    first = min(waits, default=(0.0, ""))[0]
    return Recovery(
        struck=struck,
        affected=len(waits) + len(stuck),
        first=first,
        slowest=slowest,
        slowest_id=name,
        longest=longest,
        stuck=tuple(sorted(stuck)),
    )


def _until_resumed(
    loss: Struck, others: Sequence[Struck], busy: Sequence[tuple[float, float]], *, within: float
) -> tuple[float, float]:
    """
    The time that a broker's loss may take to be found and made good.

    The search begins anew after a longer break of the sweeps. It may take longer by as much as other faults
    were in force meanwhile, or a long queue was being worked off.
    """
    excuses = [one for one in others if one.excuses(loss)]
    breaks = [one for one in excuses if one.stops_sweeps and loss.began_at < one.back_at]
    start = max([loss.began_at, *(one.back_at for one in breaks if one.began_at < loss.began_at + within)])
    spans = [*(one.in_force for one in excuses), *busy]
    return loss.began_at, start + within + _covered(start, start + within, spans)


def _resumed(life: Life, losses: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """When this thing was perhaps lost, and not yet to be found missing."""
    return [(begin, min([end, *(at for at in life.moves if at > begin)])) for begin, end in losses]


def by_kind(recoveries: Sequence[Recovery]) -> dict[str, dict[str, Any]]:
    """Summarise recoveries: for each kind of fault how often it struck, and its times in seconds."""
    summary: dict[str, dict[str, Any]] = {}
    for recovery in recoveries:
        kind = recovery.struck.fault.kind + (" (notifications)" if recovery.struck.concerns else "")
        entry = summary.setdefault(kind, {"times": [], "longest": 0.0, "limit": recovery.struck.limit})
        entry["times"].append(recovery.slowest)
        entry["longest"] = max(entry["longest"], recovery.longest)
    return {
        kind: {
            "struck": len(entry["times"]),
            "p50_seconds": round(statistics.median(entry["times"]), 1),
            "max_seconds": round(max(entry["times"]), 1),
            "limit_seconds": entry["limit"],
            "longest_seconds": round(entry["longest"], 1),
        }
        for kind, entry in sorted(summary.items())
    }


def _covered(start: float, end: float, spans: Sequence[tuple[float, float]]) -> float:
    """How much of the time from start to end lies in any of the spans."""
    covered, reached = 0.0, start
    for begin, finish in sorted(spans):
        begin, finish = max(begin, reached), min(finish, end)
        if finish > begin:
            covered += finish - begin
            reached = finish
    return covered
