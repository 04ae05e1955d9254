"""
What apps promise: invariants, each one sentence and one query or comparison, and how to repair what breaks one.

Apps hand theirs over in `apps.ready()`; `outbox.verification` is their only reader.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from outbox.resilience import Permanent, Transient

T = TypeVar("T")


class NotComparable(Exception):
    """The outside keeps no list to compare with. A note, not a violation."""


class OutOfTime(Exception):
    """The run has used up its time."""


class Ambiguous(Exception):
    """Two invariants share a name: a mistake in `apps.ready()`."""


@dataclasses.dataclass(kw_only=True)
class Snapshot:
    """One look at the system: when its snapshot was taken, and since when rows count (None: all)."""

    since: dt.datetime | None
    at: dt.datetime
    deadline: float
    _told: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def once(self, key: Any, ask: Callable[[], Iterable[T]]) -> list[T]:
        """
        What `ask` lists, asked once in a run; a failure is told again, without asking again.

        Raises:
            OutOfTime: if the list is longer than the run may last.
            outbox.resilience.Transient: if nobody answers.
            outbox.resilience.Permanent: if the question is refused.
        """
        if key not in self._told:
            try:
                self._told[key] = list(self._in_time(ask()))
            except (OutOfTime, NotComparable, Transient, Permanent) as failure:
                self._told[key] = failure
        told = self._told[key]
        if isinstance(told, Exception):
            raise told
        found: list[T] = told
        return found

    def _in_time(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            if time.monotonic() > self.deadline:
                raise OutOfTime
            yield item


Row = dict[str, Any]
Compare = Callable[[list[Row], Snapshot], Iterable[str]]
"""What our books say and the look at hand in, the offending ids out. May ask the outside."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repair:
    """
    A repair that is safe by construction.

    `apply` gets an offending id, runs in a transaction, looks again under a lock, and returns what it
    did in a sentence; empty when there was nothing left to do. A dry run rolls the transaction back.
    With `ask`, which gets the id before the transaction, the outside's answer is its second argument.
    """

    what: str
    apply: Callable[..., str]
    ask: Callable[[str], Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invariant:
    """
    One promise.

    Every row of `sql` is a violation, its first column the id people look for. The query knows
    `%(since)s`, `%(is_partial)s` (whether that was given), `%(retained)s` (what was written later has
    not been pruned) and the `values`, which are asked for before the snapshot is taken. With `compare`,
    the rows are our side of a comparison instead. `command` is what to type next; `{id}` in it becomes
    the first offending id.
    """

    name: str
    sentence: str
    sql: str
    command: str
    values: Callable[[], Mapping[str, Any]] = dict
    compare: Compare | None = None
    needs_providers: bool = False
    repair: Repair | None = None


_invariants: dict[str, Invariant] = {}


def register(invariants: Iterable[Invariant]) -> None:
    """
    Let every run examine these invariants.

    Raises:
        Ambiguous: if another invariant has the name already.
    """
    for invariant in invariants:
        if _invariants.setdefault(invariant.name, invariant) is not invariant:
            raise Ambiguous(f"{invariant.name} is the name of two invariants")


def invariants() -> list[Invariant]:
    """All that are known, in the order in which they were handed over."""
    return list(_invariants.values())
