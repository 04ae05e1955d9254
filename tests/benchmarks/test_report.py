"""The table shows what was compared. The JSON also describes the machine."""

from __future__ import annotations

import json

import pytest

from benchmarks import report
from benchmarks.harness import Contestant, Result, Sample, alternate


@pytest.fixture
def result():
    made = Result(scenario="pipeline", unit="orders/s")
    made.rows = alternate(
        [
            Contestant(name="naive", run=lambda: Sample(value=25)),
            Contestant(
                name="orderflow",
                run=lambda: Sample(value=100, units=10, cpu={"relay": 0.04}, counts={"queries": 45}),
                baseline="naive",
            ),
        ],
        rounds=2,
    )
    made.judge("at least 4 x naive", 4.0, least=4.0)
    made.judge("at least 5 x naive", 4.0, least=5.0)
    return made


def test_the_table_shows_median_range_ratio_cost_and_verdicts(result):
    text = report.table(result)
    for part in (
        "pipeline (orders/s)",
        "4.00 x naive (4.00-4.00)",
        "100-100",
        "4.00: relay 4.00",
        "queries 45.0",
    ):
        assert part in text
    assert "met      at least 4 x naive: 4.00" in text
    assert "NOT MET  at least 5 x naive: 4.00" in text


def test_a_skipped_scenario_shows_the_reason():
    skipped = Result(scenario="importing", unit="orders/s", skipped="the file is not there")
    assert report.table(skipped) == "importing (orders/s): skipped, the file is not there"


@pytest.mark.django_db
def test_the_json_names_versions_machine_and_commit(result, tmp_path):
    path = tmp_path / "folder" / "benchmark.json"
    report.write(path, [result], arguments={"quick": True})
    written = json.loads(path.read_text())
    assert {"Python", "Django", "celery", "PostgreSQL", "broker"} <= written["versions"].keys()
    assert written["machine"]["processors"] >= 1
    assert {"commit", "measured_at", "uncommitted_changes"} <= written.keys()
    assert written["results"][0]["rows"][1]["values"] == [100, 100]
