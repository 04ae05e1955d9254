"""The page of the matrix, and results that are put together from several runs."""

import dataclasses

from orderflow.alerts import catalogue
from orderflow.alerts.matrix import cases, page
from orderflow.alerts.matrix.matrix import Outcome, Result, Row

BEAT, BROKER = cases.chosen(["beat-gone", "broker-down"])


def result(*outcomes, **changes):
    values = {
        "factor": 0.1,
        "rate": 2,
        "label": "PostgreSQL 16",
        "healthy_seconds": 60,
        "placed": 100,
        "problems": [],
    }
    return Result(outcomes=list(outcomes), **(values | changes))


def outcome(case, *rows, problems=()):
    return Outcome(case=case, rows=list(rows), commands=["python3 run.py verify"], problems=list(problems))


GONE = Row(alert="BeatGone", is_required=True, fired_after=7.2, told_after=9.4, cleared_after=12.6)
SWEEP = Row(alert="SweepNotRunning", is_required=True, fired_after=14.0, told_after=None, cleared_after=3.0)
LATE = Row(alert="CriticalTimeHigh", is_required=False, fired_after=2.0, told_after=5.0, cleared_after=None)


def test_the_page_lists_each_alert_of_a_fault_and_the_required_ones_first():
    text = page.markdown(result(outcome(BEAT, LATE, SWEEP, GONE)))
    assert (
        "| beat is killed and not started again | **BeatGone** | 7 s | 9 s | 13 s |\n"
        "|  | **SweepNotRunning** | 14 s | inhibited | 3 s |\n"
        "|  | CriticalTimeHigh | 2 s | 5 s | not cleared |\n"
    ) in text


def test_the_page_lists_all_alerts_with_what_they_mean_and_their_runbooks():
    text = page.markdown(result())
    for alert in catalogue.ALERTS:
        assert f"| [{alert.name}](runbooks/{alert.name}.md) | {alert.severity} | {alert.impact} |" in text


def test_a_run_fails_by_any_problem():
    assert result(outcome(BEAT, GONE)).passed
    assert not result(outcome(BEAT, GONE, problems=["SweepNotRunning is not expected"])).passed
    assert not result(outcome(BEAT, GONE), problems=["OrdersStuck fired in the healthy time"]).passed


def test_results_of_several_runs_are_put_together_and_the_newest_counts():
    first = result(outcome(BROKER, LATE), outcome(BEAT, LATE, problems=["not cleared"]))
    again = page.with_earlier(result(outcome(BEAT, GONE)), page.as_json(first))
    assert [one.case.name for one in again.outcomes] == ["beat-gone", "broker-down"]
    assert again.outcomes[0] == outcome(BEAT, GONE)
    assert again.outcomes[1] == dataclasses.replace(first.outcomes[0])
    assert again.passed
    assert (again.placed, again.healthy_seconds) == (200, 120)
