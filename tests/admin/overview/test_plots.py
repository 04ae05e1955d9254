"""Plots say what their numbers say, whatever the numbers are."""

from __future__ import annotations

import datetime as dt
import math

import pytest

from orderflow.ops.overview import amounts
from orderflow.ops.overview.plots import BOTTOM, LEFT, RIGHT, TOP, Line, Plot

BEGAN = dt.datetime(2026, 1, 1, 22, 0, tzinfo=dt.UTC)
STEP = dt.timedelta(minutes=30)


def plot(*series, **changed) -> Plot:
    lines = [
        Line(name=f"series {number}", look="one", values=values)
        for number, values in enumerate(series, start=1)
    ]
    starts = [BEGAN + place * STEP for place in range(len(series[0]))]
    return Plot(
        **{"slug": "p", "title": "P", "lines": lines, "starts": starts, "step": STEP, "summary": "s."} | changed
    )


def points(path: str) -> list[tuple[float, float]]:
    words = path.replace("M", " ").replace("L", " ").replace("h0.5", " ").split()
    return list(zip(map(float, words[::2]), map(float, words[1::2]), strict=True))


def test_a_line_is_as_high_as_its_values():
    [(path, look)] = plot([0.0, 10.0, 20.0, 5.0]).paths
    heights = [BOTTOM - y for _, y in points(path)]

    assert look == "one"
    assert [height / max(heights) for height in heights] == pytest.approx([0, 0.5, 1, 0.25], abs=0.01)
    assert heights[2] == BOTTOM - TOP
    assert [x for x, _ in points(path)] == sorted(x for x, _ in points(path))


def test_stacked_bars_stand_on_each_other_and_together_are_as_high_as_their_sum():
    bars = plot([30.0, 0.0], [10.0, 20.0], stacked=True).bars
    (_, top_1, _, height_1, _), (_, top_2, _, height_2, _), (_, _, _, height_3, _) = [
        (float(x), float(y), float(width), float(height), look) for x, y, width, height, look in bars
    ]

    assert top_2 + height_2 == pytest.approx(top_1, abs=0.11)
    assert height_1 / height_2 == pytest.approx(3, abs=0.05)
    assert height_3 / height_2 == pytest.approx(2, abs=0.05)
    assert plot([1.0, 2.0], [1.0, 1.0], stacked=True).paths == []


def test_what_is_not_known_is_no_zero():
    shown = plot([1.0, None, None, 4.0, None], [None, None, None, 2.0, 1.0])

    assert [path.count("M") for path, _ in shown.paths] == [2, 1]
    [(x, width)] = shown.unknown
    assert float(x) == pytest.approx(LEFT + (RIGHT - LEFT) / 5, abs=0.1)
    assert float(width) == pytest.approx(2 * (RIGHT - LEFT) / 5, abs=0.1)
    assert [values for *_, values in shown.rows] == [
        ["unknown", "1"],
        ["4", "2"],
        ["unknown", "unknown"],
        ["unknown", "unknown"],
        ["1", "unknown"],
    ]
    assert not plot([None, None]).is_known
    assert plot([None, None]).paths == [("", "one")]


def test_what_there_was_nothing_to_measure_of_is_known():
    shown = plot([math.nan, 3.0, math.nan], seconds=True)

    assert shown.unknown == []
    assert [values for *_, values in shown.rows] == [["none"], ["3 s"], ["none"]]
    assert len(points(shown.paths[0][0])) == 1


def test_the_table_names_every_half_hour_newest_first_and_the_axis_some_hours():
    shown = plot([1.0] * 48)

    assert [row[:2] for row in shown.rows][:2] == [
        ("2026-01-02T21:30:00+00:00", "01-02 21:30"),
        ("2026-01-02T21:00:00+00:00", "01-02 21:00"),
    ]
    assert [label for _, label in shown.x_ticks] == ["00:00", "06:00", "12:00", "18:00"]


@pytest.mark.parametrize("seconds", [True, False])
@pytest.mark.parametrize(
    "values",
    [
        [0.0],
        [0.004],
        [0.1, 0.10001],
        [2.0000001],
        [999_999_999_999_999.9],
        [9.3e18, 1.0],
        [1e300],
        [math.inf, 1.0],
        [math.inf],
        [-5.0, 3.0],
        [86_401.0],
    ],
)
@pytest.mark.parametrize("stacked", [True, False])
def test_no_number_leaves_the_plot(values, stacked, seconds):
    shown = plot(values, stacked=stacked, seconds=seconds)

    for path, _ in shown.paths:
        assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in points(path))
    for _, y, _, height, _ in shown.bars:
        assert TOP - 0.1 <= float(y) <= BOTTOM
        assert 0 <= float(height) <= BOTTOM - TOP + 0.1
    labels = [label for *_, label in shown.y_ticks]
    assert len(set(labels)) == 3, labels
    assert max(map(len, labels)) <= (12 if max(values) > 1e20 else 7)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1k"),
        (1234, "1.2k"),
        (99_950, "100k"),
        (999_500, "1M"),
        (2_500_000, "2.5M"),
        (9_223_372_036_854_775_807, "9.2E"),
    ],
)
def test_large_numbers_are_short(number, text):
    assert amounts.short(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0004, "1 ms"),
        (0.25, "250 ms"),
        (0.9996, "1 s"),
        (2.5, "2.5 s"),
        (119.6, "120 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (10**9, "11.6k d"),
        (None, "unknown"),
        (math.nan, "unknown"),
        (math.inf, "longer than is measured"),
        (-30, "−30 s"),
    ],
)
def test_durations_are_in_the_unit_that_people_would_use(seconds, text):
    assert amounts.duration(seconds) == text


def test_an_age_in_the_future_is_called_so():
    assert amounts.ago(None) == "never"
    assert amounts.ago(-0.4) == "0 s ago"
    assert amounts.ago(-86_400 * 3) == "in the future by 3 d: a clock was wrong"
