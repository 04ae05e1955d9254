"""
The interface through which other apps describe the work behind a dead letter.

The outbox knows messages, not orders. An app registers an `Owner` in `apps.ready()`. Each owner answers for the
dead letters it knows and ignores the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from outbox.models import DeadLetter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Work that waits for a dead letter; `about` describes it, for example `OF-1042 is validated`."""

    about: str
    can_be_cancelled: bool
    permission: str
    """The Django permission that is needed to cancel the work or to mark it done."""
    can_be_marked_done: bool = False
    """Whether a person may declare that what it waits for was done by other means."""


class Owner:
    """The answers of one app. The defaults are those of an app that knows none of the dead letters."""

    def unfinished(self, dead_letters: Sequence[DeadLetter], *, lock: bool) -> dict[int, Unfinished]:
        """Return the work that waits for these dead letters, by their ids; `lock` locks it as well."""
        return {}

    def cancel(self, dead_letters: Sequence[DeadLetter], *, by: str) -> None:
        """Request the cancellation of the work that waits for them, in the caller's transaction."""

    def mark_done(self, dead_letters: Sequence[DeadLetter], *, by: str, how: str) -> None:
        """Record that what the work waits for was done by other means, in the caller's transaction."""

    def done(self, dead_letters: Sequence[DeadLetter]) -> dict[int, bool]:
        """Return whether the given-up work is done or no longer needed, by id, where that is known."""
        return {}


_owners: list[Owner] = []


def register(owner: Owner) -> None:
    """Register an owner."""
    _owners.append(owner)


def unfinished(dead_letters: Sequence[DeadLetter], *, lock: bool = False) -> dict[int, Unfinished]:
    """Return the work that waits for the dead letters, by their ids."""
    found: dict[int, Unfinished] = {}
    for owner in _owners if dead_letters else ():
        found |= owner.unfinished(dead_letters, lock=lock)
    return found


def cancel(dead_letters: Sequence[DeadLetter], *, by: str) -> None:
    """Request the cancellation of the work that waits for them, in the caller's transaction."""
    for owner in _owners if dead_letters else ():
        owner.cancel(dead_letters, by=by)


def mark_done(dead_letters: Sequence[DeadLetter], *, by: str, how: str) -> None:
    """Record that what the work waits for was done by other means, in the caller's transaction."""
    for owner in _owners if dead_letters else ():
        owner.mark_done(dead_letters, by=by, how=how)


def done(dead_letters: Sequence[DeadLetter]) -> dict[int, bool]:
    """Return whether the given-up work is done or no longer needed, by id; unknown ids are left out."""
    found: dict[int, bool] = {}
    for owner in _owners if dead_letters else ():
        found |= owner.done(dead_letters)
    return found
