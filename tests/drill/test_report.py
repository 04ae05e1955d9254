"""What a drill tells, and when it passes."""

import datetime as dt
import json

import pytest

from orderflow.chaos import answers, recovery
from orderflow.chaos.answers import Answers
from orderflow.chaos.client import Placed, Try
from orderflow.chaos.promises import Finding
from orderflow.chaos.recovery import Life, Struck
from orderflow.chaos.report import Report
from orderflow.chaos.schedule import Fault
from orderflow.chaos.wishes import Wish
from outbox import verification

DATABASE = Fault(start=2.0, kind="db-restart", target="kill")


def placed(*tries):
    wish = Wish(number=1, kind="good", key="key", body={})
    return Placed(wish=wish, tries=list(tries), order_id="id", order_number="OF-1000")


def answered(at, seconds=0.02, status=201, **more):
    return placed(Try(at=at, seconds=seconds, status=status, **more))


def struck(fault=DATABASE, *, began=1002.0, back=1003.0):
    return Struck(fault=fault, began_at=began, ended_at=began, back_at=back, did="postgres, process 1")


def verified():
    now = dt.datetime.now(dt.UTC)
    return verification.Report(ran_at=now, took=dt.timedelta(), since=None, providers=True, findings=[])


@pytest.fixture
def report():
    fault = struck()
    return Report(
        seed=7,
        broker="redis",
        command="python3 run.py chaos --seed 7",
        begun_at=1000.0,
        schedule=[DATABASE],
        struck=[fault],
        placed=[answered(1001)],
        statuses={"fulfilled": 1},
        settled_after=1.5,
        busy_seconds=3.0,
        answers=Answers(
            usual=0.02, usual_p95=0.03, outage=None, outage_p95=None, outage_count=0, outage_errors=()
        ),
        recoveries=[recovery.measure(fault, {"OF-1000": Life(moves=[1001, 1005], is_over=True)}, [])],
        repeats={"mails": 0, "pushes": 1},
        findings=[],
        verification=verified(),
    )


def test_a_drill_without_findings_passes_and_says_how_to_repeat_it(report):
    lines = report.lines()
    assert "PASS" in lines
    assert lines[-1] == "Repeat it: python3 run.py chaos --seed 7"
    assert any(line.split() == ["db-restart", "1", "2.0", "2.0", "10", "2.0"] for line in lines)


def test_a_finding_fails_it_and_is_told_with_its_id(report):
    report.findings = [Finding(rule="charged twice", subject="OF-1000", detail="pi_1, pi_2")]
    assert not report.passed
    assert "  charged twice: OF-1000: pi_1, pi_2" in report.lines()
    assert any("1 charged twice" in line for line in report.lines())


def test_a_recovery_beyond_its_limit_fails_it(report):
    life = Life(moves=[1001, 1020], is_over=True)
    report.recoveries = [recovery.measure(report.struck[0], {"OF-1000": life}, [])]
    assert report.misses == ["db-restart (kill) at 2.0 s: OF-1000 moved after 17.0 s, the limit is 10 s"]
    assert not report.passed


def test_the_files_hold_the_same_as_the_screen(report, tmp_path):
    report.write(tmp_path / "new")
    told = json.loads((tmp_path / "new" / "chaos.json").read_text())
    assert told["passed"]
    assert told["recovery"]["db-restart"]["max_seconds"] == 2.0
    assert told["timeline"][0] == {
        "fault": DATABASE.as_json(),
        "began": 2.0,
        "ended": 2.0,
        "back": 3.0,
        "did": "postgres, process 1",
        "problem": "",
    }
    text = (tmp_path / "new" / "chaos.md").read_text()
    assert text.startswith("# Chaos drill, seed 7, redis: PASS")
    assert "| 2.0 | db-restart | postgres, process 1 | 1.0 |" in text


BROKER = Fault(start=10.0, kind="broker-down", target="hang", lasts=10.0)


def outage(seconds, *, status=201):
    """Ten usual answers of 60 ms, and ten of `seconds` while the broker hangs."""
    usual = [answered(1000 + number, 0.06) for number in range(10)]
    during = [answered(1020 + number, seconds, status) for number in range(10)]
    return answers.judge([*usual, *during], [struck(BROKER, began=1019, back=1030)])


def test_answers_during_an_outage_of_the_broker_may_take_twice_as_long_and_no_longer():
    assert not outage(0.11).are_too_slow
    assert outage(0.2).are_too_slow
    assert outage(0.11).outage_count == 10


def test_an_answer_under_the_floor_is_never_slow():
    usual = [answered(1000 + number, 0.01) for number in range(10)]
    during = [answered(1020 + number, 0.09) for number in range(10)]
    assert not answers.judge([*usual, *during], [struck(BROKER, began=1019, back=1030)]).are_too_slow


def test_errors_during_an_outage_of_the_broker_are_told(report):
    report.answers = outage(0.06, status=503)
    assert report.misses == ["errors while the broker was down: 503"]


def test_answers_while_the_database_was_down_as_well_are_not_the_brokers_fault():
    during = [answered(1020 + number, 3.0, 503) for number in range(10)]
    faults = [struck(BROKER, began=1019, back=1030), struck(began=1018, back=1031)]
    assert answers.judge(during, faults).outage_count == 0
