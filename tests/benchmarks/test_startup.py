"""Start-up: a role is measured from the start of its process until it is ready."""

from __future__ import annotations

import pytest

from benchmarks import environment
from benchmarks.processes import NotReady, Spec
from benchmarks.scenarios import startup

PROGRAM = (
    "import sys, time; time.sleep(0.1); print('it is ready.', flush=True); sys.stdin.read(); time.sleep(60)"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "FOLDER", tmp_path)


def test_time_and_memory_are_taken_when_the_log_says_that_it_is_ready():
    sample = startup.started(Spec(name="role", command=["-c", PROGRAM], ready=" ready."))
    assert sample.value >= 100
    assert 1 < sample.counts["PSS MB"] <= sample.counts["MB"]
    assert sample.counts["largest MB"] == sample.counts["MB"]


def test_a_process_that_ends_before_is_an_error():
    with pytest.raises(NotReady, match="role did not come up"):
        startup.started(Spec(name="role", command=["-c", "pass"], ready=" ready."))
