"""
Plots as data for a template that writes SVG: where bars, lines, ticks and unknown stretches are.

Coordinates are strings in the units of the view box, so that no language changes their decimal point. Colours
and patterns are in the style sheet; a pattern or dashes also distinguish what colours distinguish.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

from orderflow.ops.overview import amounts

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 38, 356, 10, 130
"""The area of the plot within the view box; what is outside of it is for ticks."""

HOURS_BETWEEN_TICKS = 6

Value = float | None
"""None: not known. NaN: there was nothing to measure, as when no order became final."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One series of a plot: a value for each step, and the total or the newest value in words."""

    name: str
    look: str
    """Its class in the style sheet."""
    values: Sequence[Value]
    now: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot of one or more series over the same steps; `starts` are the beginnings of the steps."""

    slug: str
    title: str
    lines: Sequence[Line]
    starts: Sequence[dt.datetime]
    step: dt.timedelta
    summary: str
    """What it shows, in a sentence, for readers who do not see it."""
    stacked: bool = False
    seconds: bool = False
    """Whether values are durations in seconds; otherwise they are numbers of things."""
    url: str = ""
    link: str = ""

    @property
    def viewbox(self) -> str:
        """The SVG's view box."""
        return f"0 0 {WIDTH} {HEIGHT}"

    @functools.cached_property
    def is_known(self) -> bool:
        """Whether any value is known."""
        return any(value is not None for line in self.lines for value in line.values)

    @functools.cached_property
    def rows(self) -> list[tuple[str, str, list[str]]]:
        """The table: each step, newest first: its beginning twice, and the value of each series in words."""
        columns = [line.values for line in self.lines]
        cells = ([self._in_words(value) for value in values] for values in zip(*columns, strict=True))
        starts = ((start.isoformat(), f"{start:%m-%d %H:%M}") for start in self.starts)
        return [(iso, start, values) for (iso, start), values in zip(starts, cells, strict=True)][::-1]

    @functools.cached_property
    def y_ticks(self) -> list[tuple[str, str, str]]:
        """The lines of the grid: where, where their label is, and the label."""
        label: Callable[[float], str] = amounts.duration if self.seconds else amounts.short
        return [
            (_at(self._y(value)), _at(self._y(value) + 3), "0" if value == 0 else label(value))
            for value in (0, self._top / 2, self._top)
        ]

    @functools.cached_property
    def x_ticks(self) -> list[tuple[str, str]]:
        """The full hours with a label: where and what."""
        return [
            (_at(self._x(place)), f"{start:%H:%M}")
            for place, start in enumerate(self.starts)
            if start.hour % HOURS_BETWEEN_TICKS == 0 and start.minute == 0
        ]

    @functools.cached_property
    def bars(self) -> list[tuple[str, str, str, str, str]]:
        """For each value: x, y, width, height and class. Stacked bars stand on each other."""
        return list(self._bars()) if self.stacked else []

    @functools.cached_property
    def paths(self) -> list[tuple[str, str]]:
        """For each line its path and its class. Unknown values interrupt it."""
        return [] if self.stacked else [(self._path(line.values), line.look) for line in self.lines]

    @functools.cached_property
    def unknown(self) -> list[tuple[str, str]]:
        """The stretches in which nothing is known: x and width."""
        known = [
            any(value is not None for value in values)
            for values in zip(*(line.values for line in self.lines), strict=True)
        ]
        found, place = [], 0
        for is_known, group in itertools.groupby(known):
            length = len(list(group))
            if not is_known:
                found.append((_at(self._x(place)), _at(length * self._step)))
            place += length
        return found

    def _bars(self) -> Iterator[tuple[str, str, str, str, str]]:
        for place, values in enumerate(zip(*(line.values for line in self.lines), strict=True)):
            below = 0.0
            for line, value in zip(self.lines, map(_drawn, values), strict=True):
                if value:
                    top, bottom = self._y(below + value), self._y(below)
                    below += value
                    x, width = self._x(place) + 0.4, max(0.5, self._step - 0.8)
                    yield _at(x), _at(top), _at(width), _at(bottom - top), line.look

    def _path(self, values: Sequence[Value]) -> str:
        """The path of a line. A value between unknown ones is a short dash, so that it can be seen."""
        words, place = [], 0
        for is_drawn, group in itertools.groupby(map(_drawn, values), key=lambda value: value is not None):
            stretch = list(group)
            if is_drawn:
                points = [
                    f"{_at(self._x(place + more) + self._step / 2)} {_at(self._y(value or 0))}"
                    for more, value in enumerate(stretch)
                ]
                words.append(f"M{' L'.join(points)}" + (" h0.5" if len(points) == 1 else ""))
            place += len(stretch)
        return " ".join(words)

    @functools.cached_property
    def _step(self) -> float:
        return (RIGHT - LEFT) / max(1, len(self.starts))

    def _x(self, place: int) -> float:
        return LEFT + place * self._step

    def _y(self, value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * min(1.0, max(0.0, value / self._top))

    @functools.cached_property
    def _top(self) -> float:
        """The value at the upper edge: the largest one, rounded up."""
        columns = zip(*(map(_drawn, line.values) for line in self.lines), strict=True)
        together = sum if self.stacked else max
        heights = (together(value or 0.0 for value in values) for values in columns)
        return _rounded_up(
            max((height for height in heights if math.isfinite(height)), default=0), self.seconds
        )

    def _in_words(self, value: Value) -> str:
        if value is None:
            return amounts.UNKNOWN
        if math.isnan(value):
            return "none"
        return amounts.duration(value) if self.seconds else amounts.exact(value)


_NICE_SECONDS = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    20,
    30,
    60,
    120,
    240,
    600,
    1200,
    3600,
    7200,
    14_400,
    28_800,
    86_400,
)


def _rounded_up(value: float, seconds: bool) -> float:
    """The smallest round number that is not below the value, and whose half is one too."""
    if seconds:
        if value <= _NICE_SECONDS[-1]:
            return next(float(nice) for nice in _NICE_SECONDS if nice >= value)
        return 86_400 * _rounded_up(value / 86_400, False)
    if value <= 2:
        return 2.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * nice for nice in (1, 2, 4, 6, 10, 20) if power * nice >= value)


def _drawn(value: Value) -> Value:
    return None if value is None or math.isnan(value) else value


def _at(coordinate: float) -> str:
    return f"{coordinate:.1f}"
