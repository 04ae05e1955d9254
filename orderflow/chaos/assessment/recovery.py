"""
The recovery time of a fault, and its limits.

A fault affects work in progress: an order between two of its moves, or a message on its way to a customer. What
matters to a customer is the slowest of these. So the recovery time of a fault is

    from the moment that counts for its kind (see `FROM`)
    to the next move of the slowest work that was in progress at that moment,
    minus the time in which another fault was in force,
    minus the time in which it waited for a provider as planned,
    minus the time, up to its limit, in which lost work was resumed after a broker had lost all messages,
    minus the time in which workers were processing a long queue.

The subtractions are needed because the faults of a drill overlap. An order that waits for a dead worker while
the database is down waits for the database. An open breaker, or a charge that cannot be looked up yet, is
waited for by design. How fast a queue gets shorter depends on capacity. `first` is the time of the fastest
work: when the system was seen to work again. `longest` is the time of the slowest work without subtractions:
what a customer experienced, whatever the cause.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from orderflow import providers
from orderflow.chaos.faults.schedule import Fault

DEATH, BACK = "death", "back"

FROM = {
    # Nothing waits for the dead worker itself: another one takes over its work.
    "kill-worker": DEATH,
    "kill-child": DEATH,
    # The other nodes of the cluster continue.
    "kill-leader": DEATH,
}
"""The start of recovery: the death of the process, or otherwise the moment at which the target was up again."""

RESUMED_WITHIN, NOTIFICATIONS_RESUMED_WITHIN = 60.0, 120.0
"""Seconds in which work that a broker has lost is resumed: until a probe has come back, and the work ahead of
it had its time (see `outbox.relay.probes`); the queues of notifications are longer."""

STOP_SWEEPS = ("kill-relay", "kill-beat", "broker-down", "broker-restart", "kill-leader", "db-restart")
LONGEST_BREAK = 10.0
"""
Seconds without a sweep after which probes that were sent before prove nothing (see `outbox.relay.probes`).
"""

LIMITS = {
    # The lease of a step (12 s), one interval of the sweep (2 s), and a second to process the order.
    "kill-worker": 15.0,
    "kill-child": 15.0,
    "kill-relay": 10.0,
    "kill-beat": 10.0,
    "broker-down": 10.0,
    "broker-restart": 10.0,
    # An election, and reconnecting all clients of that node.
    "kill-leader": 15.0,
    "db-restart": 10.0,
    "broker-forgets": RESUMED_WITHIN,
}
"""Seconds that recovery may take. The other kinds are measured but not judged."""

NOTIFICATION_LIMIT = 75.0
"""
Seconds, instead of `LIMITS`, for deaths in the pools that send notifications. A notification is leased for 25
s, longer than its task's hard limit, because a mail server cannot report what it has accepted. Redis
redelivers an unacknowledged message after 32 s. A message that finds a foreign lease waits for its end.
Messages that the broker has lost are found by probes, some 50 s later.
"""

AT_PROVIDERS = ("slow-channel", "wrong-credentials", "provider-drop-after")
AT_A_CHANNEL = ("kill-worker", "kill-child", *AT_PROVIDERS)
"""The faults that may affect the notifications of a single channel."""


NOT_RECOVERED = "not recovered"
"""The start of the problem text of a fault whose target did not recover."""


@dataclasses.dataclass(kw_only=True)
class InjectedFault:
    """
    A fault that was injected: when it began, ended, and its target recovered (Unix times), and what was done.
    """

    fault: Fault
    began_at: float
    ended_at: float
    recovered_at: float
    did: str = ""
    problem: str = ""
    """Why it had no effect; empty if it had one."""

    @property
    def counts_from(self) -> float:
        return self.began_at if FROM.get(self.fault.kind) == DEATH else self.recovered_at

    @property
    def in_force(self) -> tuple[float, float]:
        return self.began_at, self.recovered_at

    @property
    def concerns(self) -> str:
        """The channel whose notifications it affected; empty if it affected orders."""
        return (
            self.fault.target
            if self.fault.target in providers.CHANNELS and self.fault.kind in AT_A_CHANNEL
            else ""
        )

    def excuses(self, other: InjectedFault) -> bool:
        """
        Whether `other` may take longer while this fault is in force.

        A wrong clock excuses nothing, and a fault of one channel excuses only the same channel.
        """
        if self is other or self.problem or self.fault.kind == "clock-skew":
            return False
        return self.fault.kind not in AT_PROVIDERS or self.concerns in ("", other.concerns)

    @property
    def loses_everything(self) -> bool:
        """Whether all work in progress was lost and must be found missing."""
        return self.fault.kind == "broker-forgets" and not self.problem

    @property
    def stops_sweeps(self) -> bool:
        """Whether sweeps were interrupted for so long that the search for lost work starts over."""
        return self.fault.kind in STOP_SWEEPS and self.recovered_at - self.began_at > LONGEST_BREAK

    @property
    def limit(self) -> float | None:
        """Seconds its recovery may take; None: not judged."""
        limit = LIMITS.get(self.fault.kind)
        return NOTIFICATION_LIMIT if limit and self.concerns else limit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recovery:
    """How long work in progress waited for its next move, in seconds."""

    injected: InjectedFault
    affected: int
    first: float = 0.0
    slowest: float = 0.0
    slowest_id: str = ""
    longest: float = 0.0
    stuck: tuple[str, ...] = ()
    """Work that never moved again. The findings name it, because no single fault is known to be the cause."""

    @property
    def is_too_slow(self) -> bool:
        limit = self.injected.limit
        return limit is not None and self.slowest > limit

    def as_json(self) -> dict[str, Any]:
        return {
            "fault": self.injected.fault.as_json(),
            "affected": self.affected,
            "first_seconds": round(self.first, 2),
            "slowest_seconds": round(self.slowest, 2),
            "slowest_id": self.slowest_id,
            "longest_seconds": round(self.longest, 2),
            "limit_seconds": self.injected.limit,
            "stuck": list(self.stuck),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Life:
    """
    The moves of one piece of work (Unix times, ascending), and whether the last one was its end.

    `waits` are the intervals in which it waited for a provider as planned.
    """

    moves: Sequence[float]
    is_over: bool
    waits: Sequence[tuple[float, float]] = ()


def measure(
    injected: InjectedFault,
    lives: Mapping[str, Life],
    others: Sequence[InjectedFault],
    *,
    busy: Sequence[tuple[float, float]] = (),
) -> Recovery:
    """
    Measure one fault by the work that was in progress when its recovery time began.

    `busy` are the intervals in which workers were processing a long queue.
    """
    since = injected.counts_from
    troubles = [other.in_force for other in others if other.excuses(injected)]
    losses = [
        _until_resumed(
            other, others, busy, within=NOTIFICATIONS_RESUMED_WITHIN if injected.concerns else RESUMED_WITHIN
        )
        for other in others
        if other is not injected and other.loses_everything
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
        injected=injected,
        affected=len(waits) + len(stuck),
        first=first,
        slowest=slowest,
        slowest_id=name,
        longest=longest,
        stuck=tuple(sorted(stuck)),
    )


def _until_resumed(
    loss: InjectedFault, others: Sequence[InjectedFault], busy: Sequence[tuple[float, float]], *, within: float
) -> tuple[float, float]:
    """
    The interval in which a broker's loss may be detected and repaired.

    A long interruption of the sweeps starts the search over. The interval is extended by the time in which
    other faults were in force, or workers were processing a long queue.
    """
    excuses = [one for one in others if one.excuses(loss)]
    breaks = [one for one in excuses if one.stops_sweeps and loss.began_at < one.recovered_at]
    start = max([loss.began_at, *(one.recovered_at for one in breaks if one.began_at < loss.began_at + within)])
    spans = [*(one.in_force for one in excuses), *busy]
    return loss.began_at, start + within + _covered(start, start + within, spans)


def _resumed(life: Life, losses: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The intervals in which this work may have been lost, and not yet found missing."""
    return [(begin, min([end, *(at for at in life.moves if at > begin)])) for begin, end in losses]


def by_kind(recoveries: Sequence[Recovery]) -> dict[str, dict[str, Any]]:
    """Summarise recoveries: for each kind of fault how often it was injected, and its times in seconds."""
    summary: dict[str, dict[str, Any]] = {}
    for recovery in recoveries:
        kind = recovery.injected.fault.kind + (" (notifications)" if recovery.injected.concerns else "")
        entry = summary.setdefault(kind, {"times": [], "longest": 0.0, "limit": recovery.injected.limit})
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
    """The part of the time from start to end that lies in any of the intervals."""
    covered, reached = 0.0, start
    for begin, finish in sorted(spans):
        begin, finish = max(begin, reached), min(finish, end)
        if finish > begin:
            covered += finish - begin
            reached = finish
    return covered
