"""
Named points between two durable effects: a process may die at any of them, and nothing may be lost.

A durable effect is a commit, a message accepted by a broker, or a call that an outside system acted on. Between
any two of them the code calls `crash_points.reached("relay.claimed")`. Disarmed, that costs one comparison;
tests arm it and end the process there. `docs/guarantees.md` describes each point.
"""

from __future__ import annotations

from collections.abc import Callable

_act: Callable[[str], None] | None = None


def reached(name: str) -> None:
    """Mark that the process has reached this point."""
    if (act := _act) is not None:  # read once: another thread may disarm it
        act(name)


def arm(act: Callable[[str], None]) -> None:
    """Call `act` with the name of every point that this process reaches."""
    global _act
    _act = act


def disarm() -> None:
    """Stop calling the function given to `arm`."""
    global _act
    _act = None
