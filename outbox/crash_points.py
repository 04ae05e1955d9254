"""
The moments between two durable effects, by name: where a process may die and nothing may be lost.

A durable effect is a commit, a message a broker took, or a call an outside system acted on. The code
says between any two of them `crash_points.reached("relay.claimed")`. Off, that costs one comparison;
tests arm it and end the process there. `docs/guarantees.md` tells what each name means.
"""

from __future__ import annotations

from collections.abc import Callable

_act: Callable[[str], None] | None = None


def reached(name: str) -> None:
    """Say that the work has come to this point."""
    if _act is not None:
        _act(name)


def arm(act: Callable[[str], None]) -> None:
    """Call `act` with the name of every point that this process reaches from now on."""
    global _act
    _act = act


def disarm() -> None:
    """Be silent again."""
    global _act
    _act = None
