"""The report of a drill, and when a drill passes."""

import datetime as dt
import json
import uuid

import pytest

from orderflow.chaos.assessment import copies, recovery, response_times
from orderflow.chaos.assessment.promises import Finding
from orderflow.chaos.assessment.recovery import InjectedFault, Life
from orderflow.chaos.assessment.response_times import ResponseTimes
from orderflow.chaos.faults.schedule import Fault
from orderflow.chaos.load.client import Placed, Try
from orderflow.chaos.load.planned_orders import PlannedOrder
from orderflow.chaos.report import DrillReport
from outbox.verification import examination

DATABASE = Fault(start=2.0, kind="db-restart", target="kill")


def placed(*tries):
    planned = PlannedOrder(number=1, kind="good", key="key", body={})
    return Placed(planned=planned, tries=list(tries), order_id="id", order_number="OF-1000")


def answered(at, seconds=0.02, status=201, **more):
    return placed(Try(at=at, seconds=seconds, status=status, **more))


def injected(fault=DATABASE, *, began=1002.0, back=1003.0):
    return InjectedFault(
        fault=fault, began_at=began, ended_at=began, recovered_at=back, did="postgres, process 1"
    )


def verified():
    now = dt.datetime.now(dt.UTC)
    return examination.VerificationReport(
        ran_at=now, took=dt.timedelta(), since=None, providers=True, findings=[]
    )


@pytest.fixture
def report():
    fault = injected()
    return DrillReport(
        seed=7,
        broker="redis",
        command="python3 run.py chaos --seed 7",
        begun_at=1000.0,
        schedule=[DATABASE],
        left_out={"kill-leader": "needs a cluster"},
        injected=[fault],
        placed=[answered(1001)],
        statuses={"fulfilled": 1},
        settled_after=1.5,
        busy_seconds=3.0,
        answers=ResponseTimes(
            usual=0.02, usual_p95=0.03, outage=None, outage_p95=None, outage_count=0, outage_errors=()
        ),
        recoveries=[recovery.measure(fault, {"OF-1000": Life(moves=[1001, 1005], is_over=True)}, [])],
        repeats={"mails": 0, "pushes": 1},
        copies=copies.judge(300, {}, {}, []),
        findings=[],
        verification=verified(),
    )


def test_a_drill_without_findings_passes_and_shows_how_to_repeat_it(report):
    lines = report.lines()
    assert "PASS" in lines
    assert lines[-1] == "Repeat it: python3 run.py chaos --seed 7"
    assert any(line.split() == ["db-restart", "1", "2.0", "2.0", "10", "2.0"] for line in lines)


def test_a_finding_fails_the_drill_and_is_listed_with_its_id(report):
    report.findings = [Finding(rule="charged twice", subject="OF-1000", detail="pi_1, pi_2")]
    assert not report.passed
    assert "  charged twice: OF-1000: pi_1, pi_2" in report.lines()
    assert any("1 charged twice" in line for line in report.lines())


def test_a_fault_without_effect_is_reported_and_not_measured(report):
    again = Fault(start=4.0, kind="duplicate-delivery", target="messages", strength=3.0)
    report.injected = [
        *report.injected,
        InjectedFault(
            fault=again,
            began_at=1004.0,
            ended_at=1004.0,
            recovered_at=1004.0,
            problem="no message was published in the last 3 s",
        ),
    ]
    assert (
        "no effect: duplicate-delivery (messages, 3.00) at 4.0 s: no message was published in the last 3 s"
        in (report.lines())
    )
    assert "no message was published" in report.as_markdown()


def test_the_report_explains_why_response_times_are_not_judged(report):
    report.answers = response_times.judge([answered(1001)] * 9, [])
    assert any("not judged: the broker was never down" in line for line in report.lines())

    down = Fault(start=1.0, kind="broker-down", target="hang", lasts=4.0)
    outage = InjectedFault(fault=down, began_at=1000.0, ended_at=1004.0, recovered_at=1004.0)
    few = [answered(1001)] * 2 + [answered(1050)] * 9
    report.answers = response_times.judge(few, [outage])
    assert any(
        "not judged: 2 of 2 responses came while no other fault was in force" in line for line in report.lines()
    )

    report.answers = response_times.judge([answered(1001)] * 5 + [answered(1050)] * 9, [outage])
    assert report.answers.unjudged == ""
    assert any("with the broker down 20 ms" in line for line in report.lines())


def test_unexplained_copies_fail_the_drill_and_are_named(report):
    pair = (uuid.UUID(int=1), "orders.workflows.work_off")
    report.copies = copies.judge(50, {pair: [1001, 1004]}, {}, [])
    assert not report.passed
    [missed] = report.misses
    assert missed.startswith("1 copy of deliveries that nothing explains: 00000000-")
    assert any(line.startswith("50 deliveries, 51 copies: 0 more by planned waits") for line in report.lines())
    assert report.as_json()["copies"]["copied"][0]["unexplained"] == 1


def test_copies_are_not_counted_in_another_stack(report):
    report.copies = None
    assert report.passed
    assert any("not counted" in line for line in report.lines())


def test_faults_that_were_left_out_are_listed_with_the_reason(report):
    assert "left out: kill-leader, which needs a cluster" in report.lines()
    assert report.as_json()["left_out"] == {"kill-leader": "needs a cluster"}


def test_a_recovery_beyond_its_limit_fails_the_drill(report):
    life = Life(moves=[1001, 1020], is_over=True)
    report.recoveries = [recovery.measure(report.injected[0], {"OF-1000": life}, [])]
    assert report.misses == ["db-restart (kill) at 2.0 s: OF-1000 moved after 17.0 s, the limit is 10 s"]
    assert not report.passed


def test_the_files_contain_the_same_as_the_screen(report, tmp_path):
    report.write(tmp_path / "new")
    written = json.loads((tmp_path / "new" / "chaos.json").read_text())
    assert written["passed"]
    assert written["recovery"]["db-restart"]["max_seconds"] == 2.0
    assert written["timeline"][0] == {
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
    """Ten normal responses of 60 ms, and ten of `seconds` while the broker hangs."""
    usual = [answered(1000 + number, 0.06) for number in range(10)]
    during = [answered(1020 + number, seconds, status) for number in range(10)]
    return response_times.judge([*usual, *during], [injected(BROKER, began=1019, back=1030)])


def test_responses_during_a_broker_outage_may_take_twice_as_long_and_no_longer():
    assert not outage(0.11).are_too_slow
    assert outage(0.2).are_too_slow
    assert outage(0.11).outage_count == 10


def test_a_response_below_the_threshold_is_never_slow():
    usual = [answered(1000 + number, 0.01) for number in range(10)]
    during = [answered(1020 + number, 0.09) for number in range(10)]
    assert not response_times.judge([*usual, *during], [injected(BROKER, began=1019, back=1030)]).are_too_slow


def test_errors_during_a_broker_outage_are_reported(report):
    report.answers = outage(0.06, status=503)
    assert report.misses == ["errors while the broker was down: 503"]


def test_responses_while_the_database_was_down_too_are_not_attributed_to_the_broker():
    during = [answered(1020 + number, 3.0, 503) for number in range(10)]
    faults = [injected(BROKER, began=1019, back=1030), injected(began=1018, back=1031)]
    assert response_times.judge(during, faults).outage_count == 0
