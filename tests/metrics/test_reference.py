"""The reference page is what the code says, and every metric has a bounded number of series."""

from __future__ import annotations

from orderflow.metrics import reference
from orderflow.metrics.descriptions import BY_NAME, METRICS
from orderflow.observability import metric_names


def test_the_page_is_up_to_date():
    written = reference.PAGE.read_text()
    assert written == reference.render(), "run: python -m orderflow.metrics --write"


def test_both_sides_are_on_the_page():
    page = reference.PAGE.read_text()
    for metric in (*METRICS, *metric_names.ALL):
        assert f"| `{metric.name}` |" in page
    assert not {metric.name for metric in METRICS} & set(metric_names.BY_NAME)


def test_names_follow_the_conventions_of_prometheus():
    assert len(BY_NAME) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("orderflow_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert not metric.unit or metric.name.endswith(f"_{metric.unit}"), metric.name
        assert metric.help.endswith("."), metric.name
        assert metric.source
