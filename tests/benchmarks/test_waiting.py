"""The targets of `waiting`: rates scale with naive's in the same run, memory and sessions do not."""

from __future__ import annotations

import pytest

from benchmarks.harness import Result, Sample, summarise
from benchmarks.scenarios import waiting
from benchmarks.scenarios.waiting import named


def row(name, rate, megabytes, sessions):
    sample = Sample(value=rate, counts={"MB": megabytes, "sessions": sessions})
    return summarise(name, [waiting.with_shares(sample)])


def measured(*, naive=2.8, ours=80.0, at_500=50.0, megabytes=500.0, sessions=20.0, other=50.0):
    result = Result(scenario="waiting", unit="orders/s")
    result.rows = [
        row(named("naive", 0.2), naive, 365.0, 2),
        row(named("naive, 16 processes", 0.2), 7 * naive, 2_000.0, 16),
        row(named("orderflow", 0.2), ours, megabytes, sessions),
        row(named("orderflow, 8 + 8 processes", 0.2), 18.0, 2_300.0, 20),
        row(named("naive", 0.5), 1.2, 365.0, 2),
        row(named("orderflow", 0.5), at_500, megabytes, sessions),
    ]
    if other:
        result.rows += [
            row(named("procrastinate, 1 worker", 0.2), other / 2, 59.0, 7),
            row(named("procrastinate, 2 workers", 0.2), other, 118.0, 13),
            row(named("procrastinate, 1 worker", 0.5), other / 3, 59.0, 7),
        ]
    waiting.judge(result)
    return result


def verdicts(result):
    return {verdict.requirement: verdict.met for verdict in result.verdicts}


def test_on_the_machine_of_the_targets_they_are_the_stated_ones():
    found = verdicts(measured())
    assert found["at 200 ms 75.0 orders/s (75 x 1.00)"]
    assert found["at 500 ms 50.0 orders/s (50 x 1.00)"]


@pytest.mark.parametrize(("ours", "met"), [(37.6, True), (37.4, False)])
def test_where_naive_is_half_as_fast_half_the_rate_is_wanted(ours, met):
    result = measured(naive=1.4, ours=ours)
    assert verdicts(result)["at 200 ms 37.5 orders/s (75 x 0.50)"] is met
    assert "in this run the targets for rates are 0.50 of those" in result.notes[0]


@pytest.mark.parametrize(("sessions", "met"), [(20, True), (21, False)])
def test_sessions_do_not_scale(sessions, met):
    found = verdicts(measured(naive=1.4, sessions=sessions))
    assert found["at 200 ms at most 20 sessions"] is met


def test_memory_does_not_scale():
    assert not verdicts(measured(naive=28.0, megabytes=601.0))["at 200 ms at most 600 MB"]


def test_the_best_of_the_others_counts():
    assert verdicts(measured(other=53.0))["at 200 ms 1.5 x procrastinate, 2 workers, 200 ms"]
    assert not verdicts(measured(other=54.0))["at 200 ms 1.5 x procrastinate, 2 workers, 200 ms"]


def test_the_tuned_one_is_compared_apart():
    result = measured()
    tuned = row(named("procrastinate tuned, 1 worker", 0.2), 79.0, 59.0, 7)
    result.rows.append(tuned)
    result.verdicts.clear()
    waiting.judge(result)
    found = verdicts(result)
    assert found["at 200 ms 1.5 x procrastinate, 2 workers, 200 ms"]
    assert found[f"stretch: at 200 ms 1 x {tuned.name}"]


def test_the_better_naive_system_counts_per_gigabyte():
    [requirement] = [one for one in verdicts(measured()) if one.startswith("at 200 ms 12 x the rate per GB")]
    assert requirement.endswith("of naive, 16 processes, 200 ms")


def test_without_procrastinate_nothing_is_judged_against_it():
    assert not any("procrastinate" in requirement for requirement in verdicts(measured(other=0.0)))


def test_at_500_ms_the_others_are_not_judged_against():
    at_500 = [one for one in verdicts(measured()) if "at 500 ms" in one]
    assert [one.split(" (")[0] for one in at_500] == [
        "at 500 ms 50.0 orders/s",
        "at 500 ms at most 600 MB",
        "at 500 ms at most 20 sessions",
    ]


def test_shares_are_per_gigabyte_and_per_session():
    counts = waiting.with_shares(Sample(value=50.0, counts={"MB": 500.0, "sessions": 20})).counts
    assert (counts["per GB"], counts["per session"]) == (100.0, 2.5)
