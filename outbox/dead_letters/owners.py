"""
The interface through which other apps describe the work behind a dead letter.

The outbox knows messages, not their subjects. An app registers an `Owner` in `apps.ready()`. Each owner answers
for the dead letters it knows and ignores the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

from outbox.models import DeadLetter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """
    How an operator ends unfinished work together with its dead letters, in the words of the app.

    `cancel` ends work that can be cancelled; `mark_done` ends work that was done by other means. The command
    that discards offers `--option`, explained by `help`; for dead letters that it leaves open, it reports that
    the option `ends` their work. The page offers a checkbox with `label`, explained by `note`.
    """

    verb: Literal["cancel", "mark_done"]
    option: str
    help: str
    ends: str
    label: str
    note: str

    @property
    def destination(self) -> str:
        """The option's name among the parsed options of a command."""
        return self.option.replace("-", "_")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Work that waits for a dead letter; `about` describes it, for example `invoice 1042 is unpaid`."""

    about: str
    can_be_cancelled: bool
    permission: str
    """The Django permission that is needed to cancel the work or to mark it done."""
    can_be_marked_done: bool = False
    """Whether a person may declare that what it waits for was done by other means."""

    def can_end_by(self, verb: str) -> bool:
        """Whether the work can be ended in this way."""
        return {"cancel": self.can_be_cancelled, "mark_done": self.can_be_marked_done}[verb]


class Owner:
    """The answers of one app. The defaults are those of an app that knows none of the dead letters."""

    ways: ClassVar[Sequence[Way]] = ()

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


def ways() -> list[Way]:
    """Return the ways to end unfinished work that the apps offer."""
    return [way for owner in _owners for way in owner.ways]


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
