"""Competing consumers: sizes that end within minutes, and verdicts only where processors have time left."""

from __future__ import annotations

import pytest

from benchmarks.harness import Result, Sample, summarise
from benchmarks.pools import PREFORK, THREADS
from benchmarks.scenarios import consumers
from benchmarks.scenarios.consumers import named


@pytest.mark.parametrize(
    ("pool", "workers", "seconds", "expected"),
    [
        (PREFORK, 1, 0.0, 10_000),
        (PREFORK, 1, 0.2, 300),
        (PREFORK, 8, 0.2, 2_400),
        (THREADS, 1, 0.2, 9_600),
        (THREADS, 8, 0.2, 10_000),
    ],
)
def test_calls_alone_take_a_minute_at_most(pool, workers, seconds, expected):
    assert consumers.messages(pool, workers, seconds) == expected


def result_of(pool, seconds, rates, busy):
    result = Result(scenario="consumers", unit="messages/s")
    result.rows = [
        summarise(named(pool, workers, seconds), [Sample(value=rate, counts={"busy %": share})])
        for workers, rate, share in zip((1, 2, 4), rates, busy, strict=True)
    ]
    return result


def test_linear_is_wanted_until_the_processors_are_busy():
    result = result_of(THREADS, 0.05, rates=(100, 190, 200), busy=(30, 50, 97))
    consumers.judge(result, THREADS, 0.05, (1, 2, 4))
    assert [(verdict.requirement, verdict.measured, verdict.met) for verdict in result.verdicts] == [
        ("threads, 50 ms: near-linear up to 2 processes, share of linear", "0.95", True),
        ("threads, 50 ms: two processes are not slower than one", "1.90", True),
    ]


def test_a_second_worker_that_slows_the_first_is_noticed():
    result = result_of(THREADS, 0.0, rates=(100, 90, 80), busy=(90, 95, 97))
    consumers.judge(result, THREADS, 0.0, (1, 2, 4))
    [verdict] = result.verdicts
    assert not verdict.met


def test_the_table_marks_what_was_measured_with_busy_processors():
    result = result_of(PREFORK, 0.05, rates=(18, 36, 70), busy=(10, 20, 90))
    points = [consumers.point(result, PREFORK, workers, 0.05) for workers in (1, 2, 4)]
    assert consumers.table(points) == [
        "| Processes | prefork, 50 ms |",
        "|---|---|",
        "| 1 | 18.0 |",
        "| 2 | 36.0 |",
        "| 4 | *70.0* |",
    ]


def test_prefork_has_one_worker_and_threads_have_one_each():
    assert [spec.name for spec in consumers.consumers(PREFORK, 4, 0.0)] == ["email"]
    assert [spec.name for spec in consumers.consumers(THREADS, 2, 0.0)] == ["email1", "email2"]
