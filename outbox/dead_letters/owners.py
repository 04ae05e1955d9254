"""
What the apps above say of the work behind a dead letter: whether it is finished, done, or can be cancelled.

The outbox knows messages, not orders. An app hands an `Owner` over in `apps.ready()`; each one answers
for the dead letters it knows and is silent about the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from outbox.models import DeadLetter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Work that waits for a dead letter; `about` names it to a person: `OF-1042 is validated`."""

    about: str
    can_be_cancelled: bool
    permission: str
    """Who may cancel it or mark it done, as Django names permissions."""
    can_be_marked_done: bool = False
    """Whether it ends when a person says that what it waits for was done by other means."""


class Owner:
    """An app's answers; the defaults are those of an app that has nothing to say."""

    def unfinished(self, dead_letters: Sequence[DeadLetter], *, lock: bool) -> dict[int, Unfinished]:
        """What these dead letters hold up, by their ids; with `lock`, nobody moves it meanwhile."""
        return {}

    def cancel(self, dead_letters: Sequence[DeadLetter], *, by: str) -> None:
        """Ask for what they hold up to be cancelled, in the caller's transaction."""

    def mark_done(self, dead_letters: Sequence[DeadLetter], *, by: str, how: str) -> None:
        """Note that what they wait for was done by other means, in the caller's transaction."""

    def done(self, dead_letters: Sequence[DeadLetter]) -> dict[int, bool]:
        """Whether what these dead letters gave up is done by now or not needed, where that is known."""
        return {}


_owners: list[Owner] = []


def register(owner: Owner) -> None:
    """Ask `owner`, too, from now on."""
    _owners.append(owner)


def unfinished(dead_letters: Sequence[DeadLetter], *, lock: bool = False) -> dict[int, Unfinished]:
    """What the dead letters hold up, by their ids."""
    found: dict[int, Unfinished] = {}
    for owner in _owners if dead_letters else ():
        found |= owner.unfinished(dead_letters, lock=lock)
    return found


def cancel(dead_letters: Sequence[DeadLetter], *, by: str) -> None:
    """Ask for what they hold up to be cancelled, in the caller's transaction."""
    for owner in _owners if dead_letters else ():
        owner.cancel(dead_letters, by=by)


def mark_done(dead_letters: Sequence[DeadLetter], *, by: str, how: str) -> None:
    """Note that what they wait for was done by other means, in the caller's transaction."""
    for owner in _owners if dead_letters else ():
        owner.mark_done(dead_letters, by=by, how=how)


def done(dead_letters: Sequence[DeadLetter]) -> dict[int, bool]:
    """Whether what these dead letters gave up is done or not needed; ids of which nobody knows are missing."""
    found: dict[int, bool] = {}
    for owner in _owners if dead_letters else ():
        found |= owner.done(dead_letters)
    return found
