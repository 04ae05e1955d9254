"""The picture of the scenario `consumers`: messages per second by the number of worker processes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from benchmarks.harness import figure
from benchmarks.pictures.svg import Canvas, Place

WIDTH, HEIGHT = 860, 430
LEFT, TOP, PANEL, GAP, TALL = 64, 84, 320, 60, 270
COLOURS = ("a", "b", "c")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement. `busy`: whether the processors were; more processes cannot help then."""

    pool: str
    workers: int
    milliseconds: int
    rate: float
    busy: bool


def draw(points: Sequence[Point], *, title: str, subtitle: str) -> str:
    """
    Return the picture: a panel for each pool, a line for each response time, on logarithmic axes.

    There a rate that grows with the processes is a straight line, which is drawn dotted from each first point.
    """
    canvas = Canvas(WIDTH, HEIGHT, title=title, description=describe(points))
    canvas.text((LEFT, 30), title, kind="title")
    canvas.text((LEFT, 50), subtitle, kind="soft")
    scale = _Scale(points)
    for number, pool in enumerate(dict.fromkeys(point.pool for point in points)):
        own = [point for point in points if point.pool == pool]
        _panel(canvas, own, pool, LEFT + number * (PANEL + GAP), scale)
    _legend(canvas)
    return canvas.document()


def describe(points: Sequence[Point]) -> str:
    """Return the picture in words, for readers who do not see it."""
    lines = []
    for pool, milliseconds in dict.fromkeys((point.pool, point.milliseconds) for point in points):
        own = [point for point in points if (point.pool, point.milliseconds) == (pool, milliseconds)]
        rates = ", ".join(
            f"{figure(point.rate)} with {point.workers}{' (processors busy)' if point.busy else ''}"
            for point in own
        )
        lines.append(f"{pool}, {milliseconds} ms per call: {rates}.")
    return "Messages per second by worker processes. " + " ".join(lines)


class _Scale:
    """Places on the axes, which are the same in all panels."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.workers = sorted({point.workers for point in points})
        rates = [point.rate for point in points]
        self.lowest = math.floor(math.log10(min(rates)))
        self.highest = max(self.lowest + 1, math.ceil(math.log10(max(rates))))

    def across(self, workers: int) -> float:
        steps = max(1, len(self.workers) - 1)
        return 16 + (PANEL - 72) * self.workers.index(workers) / steps

    def down(self, rate: float) -> float:
        share = (math.log10(rate) - self.lowest) / (self.highest - self.lowest)
        return TOP + TALL * (1 - share)


def _panel(canvas: Canvas, points: Sequence[Point], pool: str, left: float, scale: _Scale) -> None:
    canvas.text((left, TOP - 12), pool)
    for power in range(scale.lowest, scale.highest + 1):
        height = scale.down(10.0**power)
        canvas.line((left, height), (left + PANEL, height), kind="rule")
        canvas.text((left - 8, height + 4), f"{10.0**power:,g}", kind="soft", anchor="end")
    for workers in scale.workers:
        canvas.text((left + scale.across(workers), TOP + TALL + 20), str(workers), kind="soft", anchor="middle")
    canvas.text((left + PANEL / 2, TOP + TALL + 40), "worker processes", kind="soft", anchor="middle")
    labels: list[float] = []
    for colour, milliseconds in zip(COLOURS, sorted({point.milliseconds for point in points}), strict=False):
        own = sorted(
            (point for point in points if point.milliseconds == milliseconds), key=lambda point: point.workers
        )
        _series(canvas, own, colour, left, scale, labels)


def _series(
    canvas: Canvas, points: Sequence[Point], colour: str, left: float, scale: _Scale, labels: list[float]
) -> None:
    def place(workers: int, rate: float) -> Place:
        return left + scale.across(workers), scale.down(rate)

    first, last = points[0], points[-1]
    # The dotted line ends at the top of the panel.
    most = [
        point.workers for point in points if first.rate * point.workers / first.workers <= 10.0**scale.highest
    ]
    ideal = [place(workers, first.rate * workers / first.workers) for workers in most]
    canvas.path(ideal, kind=f"ideal {colour}")
    canvas.path([place(point.workers, point.rate) for point in points], kind=f"line {colour}")
    for point in points:
        words = f"{figure(point.rate)}/s with {point.workers}{', processors busy' if point.busy else ''}"
        kind = f"point {colour}{' hollow' if point.busy else ''}"
        canvas.circle(place(point.workers, point.rate), 4, kind=kind, tip=words)
    across, down = place(last.workers, last.rate)
    while any(abs(down - other) < 15 for other in labels):
        down += 1
    labels.append(down)
    canvas.text((across + 10, down + 4), f"{last.milliseconds} ms", kind=f"label {colour}")


def _legend(canvas: Canvas) -> None:
    height = HEIGHT - 16
    canvas.text((LEFT, height), "messages/s; both axes are logarithmic", kind="soft")
    canvas.circle((LEFT + 276, height - 4), 4, kind="point a")
    canvas.text((LEFT + 286, height), "processors have time left", kind="soft")
    canvas.circle((LEFT + 474, height - 4), 4, kind="point a hollow")
    canvas.text((LEFT + 484, height), "processors are busy", kind="soft")
    canvas.path([(LEFT + 638, height - 4), (LEFT + 662, height - 4)], kind="ideal a")
    canvas.text((LEFT + 670, height), "linear", kind="soft")
