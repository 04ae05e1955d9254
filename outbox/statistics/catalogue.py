"""
The series of all apps: what is counted, from which rows, and under which labels.

Apps register theirs in `apps.ready()`; `rolling_up`, `totals` and `reading` read them.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14_400.0)
"""Upper bounds of histograms in seconds, inclusive. A series whose bounds change needs another name: what was
counted with other bounds cannot be added."""

MOST_COMBINATIONS = 100
"""Combinations of labels of one series. More are counted under `OTHER`, because each costs memory in every
Prometheus that reads it, and names in rows may come from anybody who reaches the broker."""

OTHER = "other"


class Ambiguous(Exception):
    """Two series share a name: a mistake in `apps.ready()`."""


class UnknownSeries(Exception):
    """No app has registered the series."""


class Kind(enum.StrEnum):
    """What a series counts."""

    COUNT = "count"
    DURATION = "duration"
    GAUGE = "gauge"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """
    The rows of a table that a series counts, in SQL. The table's rows are called `counted`.

    Rows are read in the order of `position`, a column with an index. It is an ascending number, or with
    `is_time` a time by the database's clock, which every counted row has. Each row is counted once. A row for
    which `where` is false but `may_follow` is true is remembered, and counted when `where` becomes true; it
    must stay true then. Reading stops before the first row for which `is_early` is true.
    """

    table: str
    at: str
    """When it happened: the minute in which it is counted."""
    where: str = "TRUE"
    join: str = ""
    seconds: str = "NULL"
    """How long it took."""
    labels: tuple[str, ...] = ()
    """The expressions of the series' labels."""
    may_follow: str = ""
    is_early: str = ""
    position: str = "id"
    is_time: bool = False
    also: str = ""
    """A condition for which the index of `position` is made."""
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Parameters of these expressions."""

    @property
    def after(self) -> str:
        """The condition that a row comes after the parameter `after`."""
        return f"counted.{self.position} > {self._value('after')}{self._also}"

    @property
    def between(self) -> str:
        """The condition that a row comes after `after`, and not after `until`."""
        return f"{self.after} AND counted.{self.position} <= {self._value('until')}"

    @property
    def number(self) -> str:
        """The position of a row as a whole number: its id, or microseconds since 1970."""
        return self._number(f"counted.{self.position}") if self.is_time else f"counted.{self.position}"

    @property
    def newest(self) -> str:
        """A query for the newest position now."""
        if self.is_time:
            return f"SELECT {self._number('clock_timestamp()')}"
        return f"SELECT coalesce(max({self.position}), 0) FROM {self.table}"  # noqa: S608 - our own tables

    @property
    def _also(self) -> str:
        return f" AND {self.also}" if self.also else ""

    @staticmethod
    def _number(time: str) -> str:
        return f"(extract(epoch FROM {time}) * 1000000)::bigint"

    def _value(self, parameter: str) -> str:
        if self.is_time:
            return f"(timestamptz 'epoch' + %({parameter})s * interval '1 microsecond')"
        return f"%({parameter})s"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """
    One series, with `labels` in a fixed order.

    Counts and durations have `rows`; a gauge has `sample`, which is called once a minute and returns its value.
    """

    name: str
    help: str
    kind: Kind
    labels: tuple[str, ...] = ()
    rows: Rows | None = None
    sample: Callable[[], float] | None = None
    bounds: tuple[float, ...] = ()
    """Upper bounds of its histogram, in seconds; only durations have one."""

    def named(self, labels: Iterable[str]) -> dict[str, str]:
        """Return stored labels by name."""
        return dict(zip(self.labels, labels, strict=True))


def count(name: str, help: str, *, rows: Rows, labels: tuple[str, ...] = ()) -> Series:  # noqa: A002
    """Return a series that counts rows."""
    return Series(name=name, help=help, kind=Kind.COUNT, labels=labels, rows=rows)


def duration(
    name: str,
    help: str,  # noqa: A002 - as Prometheus calls it
    *,
    rows: Rows,
    labels: tuple[str, ...] = (),
    bounds: tuple[float, ...] = BOUNDS,
) -> Series:
    """Return a series that counts rows by how long something took."""
    return Series(name=name, help=help, kind=Kind.DURATION, labels=labels, rows=rows, bounds=bounds)


def gauge(name: str, help: str, *, sample: Callable[[], float]) -> Series:  # noqa: A002
    """Return a series of samples, one a minute."""
    return Series(name=name, help=help, kind=Kind.GAUGE, sample=sample)


_series: dict[str, Series] = {}
_later: list[Callable[[], Iterable[Series]]] = []


def register(series: Iterable[Series]) -> None:
    """
    Register series.

    Raises:
        Ambiguous: if another series already has the name.
    """
    for one in series:
        if _series.setdefault(one.name, one) is not one:
            raise Ambiguous(f"{one.name} is the name of two series")


def register_later(load: Callable[[], Iterable[Series]]) -> None:
    """Register what `load` returns, once series are asked for: most processes count nothing."""
    _later.append(load)


def series() -> list[Series]:
    """
    Return all series, in the order of their registration.

    Raises:
        Ambiguous: if two have the same name.
    """
    while _later:
        register(_later[0]())
        del _later[0]
    return list(_series.values())


def get(name: str) -> Series:
    """
    Return a series.

    Raises:
        UnknownSeries: if there is none with this name.
    """
    series()
    try:
        return _series[name]
    except KeyError:
        raise UnknownSeries(f"no app has registered the series {name}") from None
