"""The picture of competing consumers shows every measurement, also in words, and in both schemes."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest

from benchmarks.pictures import consumers
from benchmarks.pictures.consumers import Point
from benchmarks.pictures.svg import STYLE, Canvas

SVG = "{http://www.w3.org/2000/svg}"


def point(pool, workers, milliseconds, rate, busy=False):
    return Point(pool=pool, workers=workers, milliseconds=milliseconds, rate=rate, busy=busy)


POINTS = [
    point("prefork", 1, 50, 18.0),
    point("prefork", 2, 50, 36.0),
    point("prefork", 4, 50, 70.0),
    point("threads", 1, 50, 210.0),
    point("threads", 2, 50, 260.0, busy=True),
    point("threads", 4, 50, 255.0, busy=True),
]


@pytest.fixture
def picture():
    return ElementTree.fromstring(consumers.draw(POINTS, title="Redis & others", subtitle="two processors"))


def of_class(picture, name, kind):
    return [element for element in picture.iter(SVG + name) if kind in element.get("class", "").split()]


def tipped(picture):
    return [circle for circle in of_class(picture, "circle", "point") if circle.find(SVG + "title") is not None]


def test_every_measurement_is_a_point_with_its_figures(picture):
    tips = [circle.find(SVG + "title").text for circle in tipped(picture)]
    assert tips == [
        "18.0/s with 1",
        "36.0/s with 2",
        "70.0/s with 4",
        "210/s with 1",
        "260/s with 2, processors busy",
        "255/s with 4, processors busy",
    ]


def test_points_where_the_processors_are_busy_are_hollow(picture):
    hollow = ["hollow" in circle.get("class").split() for circle in tipped(picture)]
    assert hollow == [point.busy for point in POINTS]


def test_a_higher_rate_is_higher_and_more_processes_are_further_right(picture):
    places = [(float(circle.get("cx")), -float(circle.get("cy"))) for circle in tipped(picture)]
    assert places[:3] == sorted(places[:3])
    by_height = sorted(POINTS, key=lambda one: dict(zip(POINTS, places, strict=True))[one][1])
    assert [one.rate for one in by_height] == sorted(one.rate for one in POINTS)


def test_twice_the_rate_with_twice_the_processes_lies_on_the_dotted_line(picture):
    first, second = (float(circle.get("cy")) for circle in tipped(picture)[:2])
    ideal = of_class(picture, "polyline", "ideal")[0].get("points").split()
    assert [float(place.split(",")[1]) for place in ideal[:2]] == [first, second]


def test_nothing_lies_outside(picture):
    width, height = map(float, picture.get("viewBox").split()[2:])
    for circle in tipped(picture):
        assert 0 < float(circle.get("cx")) < width
        assert consumers.TOP <= float(circle.get("cy")) <= consumers.TOP + consumers.TALL < height


def test_it_has_a_title_and_all_figures_in_words(picture):
    assert picture.find(SVG + "title").text == "Redis & others"
    words = picture.find(SVG + "desc").text
    assert "threads, 50 ms per call: 210 with 1, 260 with 2 (processors busy), 255 with 4" in words
    assert picture.get("role") == "img"


def test_labels_of_lines_that_end_close_together_do_not_overlap():
    points = [point("threads", 1, call, 100.0 + call) for call in (0, 50, 200)]
    drawn = ElementTree.fromstring(consumers.draw(points, title="", subtitle=""))
    heights = sorted(float(label.get("y")) for label in of_class(drawn, "text", "label"))
    assert all(below - above >= 15 for above, below in itertools.pairwise(heights))


def test_every_colour_has_a_value_for_dark_and_for_light():
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    names = set(re.findall(r"(--\w+):", light)) - {"--own"}
    assert names == set(re.findall(r"(--\w+):", dark.split(".paper")[0]))


def test_texts_are_escaped():
    canvas = Canvas(10, 10, title="<a>", description="&")
    canvas.text((1, 1), "x < y & z")
    canvas.circle((1, 1), 1, kind='"', tip="<")
    drawn = ElementTree.fromstring(canvas.document())
    assert drawn.find(SVG + "text").text == "x < y & z"
