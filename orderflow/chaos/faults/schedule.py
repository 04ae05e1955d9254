"""The schedule of a drill's faults: drawn from the seed, so that the same seed gives the same drill."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

from orderflow import providers

SPACING = 10.0
"""Seconds between two faults if the duration permits: the effects of most are over by then."""

QUIET_START, QUIET_END = 0.08, 0.82
"""The part of the drill in which faults begin: before it normal response times are measured, after it the last
faults still affect orders."""

FEWEST_NODES = 3
"""The smallest cluster that continues without one of its nodes."""

ORDER_POOLS = ("orders", "orders-2")
ALL_POOLS = (*ORDER_POOLS, *providers.CHANNELS)
"""The pools of which a worker or child may be killed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trait:
    """The parameters of a kind of fault: its duration (seconds), targets and strength (its own scale)."""

    lasts: tuple[float, float] = (0.0, 0.0)
    targets: tuple[str, ...] = ("",)
    strength: tuple[float, float] = (0.0, 0.0)
    strengths: tuple[float, ...] = ()
    """Values to choose from instead of the range, where only some are of interest."""
    needs_own_stack: bool = True
    needs_cluster: bool = False


TRAITS: dict[str, Trait] = {
    "kill-worker": Trait(targets=ALL_POOLS),
    "kill-relay": Trait(targets=("relay",)),
    "kill-beat": Trait(targets=("beat",)),
    "kill-child": Trait(targets=ALL_POOLS),
    # Longer than the lease of a step (12 s): others have taken over its order when it continues.
    "pause-worker": Trait(lasts=(13.0, 16.0), targets=ORDER_POOLS),
    "broker-down": Trait(lasts=(4.0, 8.0), targets=("hang", "refuse")),
    "broker-restart": Trait(targets=("broker",)),
    "kill-leader": Trait(targets=("orders", "relay", "email"), needs_cluster=True),
    "db-restart": Trait(targets=("kill", "interrupt")),
    "network-latency": Trait(lasts=(3.0, 6.0), targets=("broker", "broker", "database"), strength=(0.05, 0.3)),
    "provider-drop-after": Trait(
        lasts=(3.0, 6.0),
        targets=("payments", "warehouse", "sms"),
        strength=(0.1, 0.3),
        needs_own_stack=False,
    ),
    "slow-provider": Trait(
        lasts=(4.0, 8.0), targets=("payments", "warehouse"), strength=(0.5, 2.0), needs_own_stack=False
    ),
    "slow-channel": Trait(lasts=(4.0, 8.0), targets=providers.CHANNELS, strength=(0.5, 2.0)),
    "wrong-credentials": Trait(
        lasts=(3.0, 6.0), targets=("payments", "warehouse", "sms", "push"), needs_own_stack=False
    ),
    "broker-forgets": Trait(targets=("messages",)),
    "duplicate-delivery": Trait(strength=(3.0, 10.0), targets=("messages",), needs_own_stack=False),
    "clock-skew": Trait(
        lasts=(10.0, 20.0),
        targets=("beat", "relay", "web", *ALL_POOLS),
        strengths=(-86_400.0, -3_600.0, -3.0, 3.0, 3_600.0, 86_400.0),
    ),
    "clock-jump": Trait(strength=(30.0, 60.0), targets=("database",), needs_own_stack=False),
}
KINDS = tuple(TRAITS)


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Fault:
    """
    One fault: from `start`, for `lasts` seconds (0: momentary), against `target`.

    `strength` is seconds of latency, the probability of a dropped response, the age of the messages that are
    sent again, how far a clock jumps, or by how many seconds a clock is wrong.
    """

    start: float
    kind: str
    target: str
    lasts: float = 0.0
    strength: float = 0.0

    def __str__(self) -> str:
        details = [self.target]
        details += [f"{self.lasts:.1f} s"] if self.lasts else []
        details += [f"{self.strength:.2f}"] if self.strength else []
        return f"{self.kind} ({', '.join(filter(None, details))})"

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def possible(kinds: Sequence[str], *, own_stack: bool, nodes: int) -> tuple[list[str], dict[str, str]]:
    """Return which kinds can be injected, and why the others cannot."""
    left_out: dict[str, str] = {}
    for kind in kinds:
        if TRAITS[kind].needs_own_stack and not own_stack:
            left_out[kind] = "needs the drill's own stack"
        elif TRAITS[kind].needs_cluster and nodes < FEWEST_NODES:
            left_out[kind] = f"needs a cluster: --broker rabbitmq --nodes {FEWEST_NODES}"
    return [kind for kind in kinds if kind not in left_out], left_out


def draw(kinds: Sequence[str], *, seed: int, duration: float, spacing: float = SPACING) -> list[Fault]:
    """
    Draw the faults of a drill of `duration` seconds.

    Every kind is injected at least once, however short the drill is, and none a second time before all have
    been injected once. They begin at even distances, with a random shift.
    """
    dice = random.Random(seed)  # noqa: S311 - no secret
    if not kinds:
        return []
    first, last = QUIET_START * duration, QUIET_END * duration
    count = max(len(kinds), int((last - first) / spacing))
    names: list[str] = []
    while len(names) < count:
        names += dice.sample(list(kinds), len(kinds))
    step = (last - first) / count
    return sorted(
        _fault(name, start=first + step * (position + dice.uniform(0.0, 0.5)), dice=dice)
        for position, name in enumerate(names[:count])
    )


def _fault(kind: str, *, start: float, dice: random.Random) -> Fault:
    trait = TRAITS[kind]
    return Fault(
        start=round(start, 2),
        kind=kind,
        target=dice.choice(trait.targets),
        lasts=round(dice.uniform(*trait.lasts), 2),
        strength=dice.choice(trait.strengths) if trait.strengths else round(dice.uniform(*trait.strength), 3),
    )
