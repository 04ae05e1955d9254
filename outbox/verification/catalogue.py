"""
The invariants of all apps: each has a sentence, a query or a comparison, and possibly a repair.

Apps register theirs in `apps.ready()`; `examination` reads them.
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
    """The provider has no list to compare with. This is a note, not a violation."""


class OutOfTime(Exception):
    """The run has used up its time."""


class Ambiguous(Exception):
    """Two invariants share a name: a mistake in `apps.ready()`."""


@dataclasses.dataclass(kw_only=True)
class Snapshot:
    """One run's view of the system: the time of its snapshot, and since when rows count (None: all)."""

    since: dt.datetime | None
    at: dt.datetime
    deadline: float
    _results: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def once(self, key: Any, fetch: Callable[[], Iterable[T]]) -> list[T]:
        """
        Return the list that `fetch` returns, fetched once in a run; raise its failure again without a new call.

        Raises:
            OutOfTime: if fetching the list takes longer than the run may last.
            outbox.resilience.Transient: if the provider does not answer.
            outbox.resilience.Permanent: if the provider refuses the request.
        """
        if key not in self._results:
            try:
                self._results[key] = list(self._in_time(fetch()))
            except (OutOfTime, NotComparable, Transient, Permanent) as failure:
                self._results[key] = failure
        result = self._results[key]
        if isinstance(result, Exception):
            raise result
        found: list[T] = result
        return found

    def _in_time(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            if time.monotonic() > self.deadline:
                raise OutOfTime
            yield item


Row = dict[str, Any]
Compare = Callable[[list[Row], Snapshot], Iterable[str]]
"""Takes the rows of our side and the snapshot, and returns the offending ids. May call providers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repair:
    """
    A repair that is safe by construction.

    `apply` gets an offending id, runs in a transaction, checks again under a lock, and returns a sentence about
    what it did; empty if there was nothing left to do. A dry run rolls the transaction back. `query` is called
    with the id before the transaction, for example to query a provider; its result is the second argument of
    `apply`.
    """

    what: str
    apply: Callable[..., str]
    query: Callable[[str], Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invariant:
    """
    One guarantee.

    Every row of `sql` is a violation, with the id to look up in its first column. The query has the parameters
    `%(since)s`, `%(is_partial)s` (whether that was given), `%(retained)s` (rows written later have not been
    pruned) and the `values`, which are read before the snapshot is taken. With `compare`, the rows are our side
    of a comparison instead. `command` is the next command to type; `{id}` in it is replaced by the first
    offending id.
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
_later: list[Callable[[], Iterable[Invariant]]] = []


def register(invariants: Iterable[Invariant]) -> None:
    """
    Register invariants.

    Raises:
        Ambiguous: if another invariant already has the name.
    """
    for invariant in invariants:
        if _invariants.setdefault(invariant.name, invariant) is not invariant:
            raise Ambiguous(f"{invariant.name} is the name of two invariants")


def register_later(load: Callable[[], Iterable[Invariant]]) -> None:
    """Register what `load` returns, once invariants are asked for: most processes never examine any."""
    _later.append(load)


def invariants() -> list[Invariant]:
    """
    Return all invariants, in the order of their registration.

    Raises:
        Ambiguous: if two have the same name.
    """
    while _later:
        register(_later[0]())
        del _later[0]
    return list(_invariants.values())
