"""The capacity model, compared with runs of the benchmark, and the command that prints it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json

import pytest

from orderflow.ops import capacity
from orderflow.ops.capacity import MEASURED, Load
from tests.processes import ROOT

POINTS = json.loads((ROOT / "tests" / "commands" / "capacity_points.json").read_text())
"""Real runs, reduced to what the model uses. The load is that of the whole machine, which was shared."""

MONTH = dt.timedelta(days=30)


def pipeline(point):
    [row] = [row for result in point["results"] if result["scenario"] == "pipeline" for row in result["rows"]]
    return row


def most_of(point, costs):
    """Return the run's possible rate by the model. Its orders were written directly, not through the API."""
    costs = dataclasses.replace(costs, web=pipeline(point)["cpu"]["client"])
    return capacity.most(cores=point["machine"]["processors"], costs=costs)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point["measured_at"])
def test_no_run_was_faster_than_the_model_allows(point):
    assert pipeline(point)["median"] <= most_of(point, capacity.costs_of(point))


def test_where_little_else_ran_the_model_is_right_by_a_factor_of_one_and_a_half():
    # A run takes less than a minute, so the load of five minutes shows what else was running.
    quiet = [
        point for point in POINTS if point["machine"]["load_average"][1] <= 2 * point["machine"]["processors"]
    ]
    assert quiet
    for point in quiet:
        predicted = most_of(point, MEASURED[point["arguments"]["broker"]])
        assert predicted / 1.5 <= pipeline(point)["median"] <= predicted


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point["measured_at"])
def test_what_an_order_costs_drifts_by_less_than_three_quarters_on_a_busy_machine(point):
    known, measured = MEASURED[point["arguments"]["broker"]], capacity.costs_of(point)

    assert known.all_in / 1.75 <= measured.all_in <= known.all_in * 1.75


def test_twice_the_orders_take_twice_the_processors_messages_and_disk():
    one, two = (capacity.needed(Load(orders_per_second=rate), retention=MONTH) for rate in (500, 1000))

    assert [role.busy for role in two.roles] == pytest.approx([2 * role.busy for role in one.roles])
    assert two.broker_messages_per_second == 2 * one.broker_messages_per_second
    assert two.bytes_a_day == pytest.approx(2 * one.bytes_a_day)


@pytest.mark.parametrize("threads", [0, 32])
def test_workers_wait_for_providers_and_so_must_have_many_calls_in_flight(threads):
    def processes(milliseconds):
        load = Load(orders_per_second=100, provider=dt.timedelta(milliseconds=milliseconds), threads=threads)
        return {role.name: role.processes for role in capacity.needed(load, retention=MONTH).roles}

    at_once, slow = processes(0), processes(1_000)
    assert slow["orders"] > 5 * at_once["orders"]
    assert slow["relay"] == at_once["relay"]


def test_threads_need_a_fraction_of_the_processes_and_share_sessions():
    by_threads, by_processes = (
        {role.name: role for role in capacity.needed(load, retention=MONTH).roles}
        for load in (Load(orders_per_second=500), Load(orders_per_second=500, threads=0))
    )

    assert by_threads["orders"].processes < by_processes["orders"].processes / 10
    assert by_threads["orders"].sessions == by_threads["orders"].processes * (8 + 1)
    assert by_processes["orders"].sessions == by_processes["orders"].processes


def test_the_command_compares_the_sessions_with_what_the_server_allows(run, db):
    assert "sessions: the server allows" in run("capacity", orders_per_second=10).out
    few = run("capacity", orders_per_second=10, max_connections=20).out
    assert "too many" in few
    assert "DATABASE_POOL_SIZE" in few


def test_an_idle_system_still_has_one_process_of_each_role():
    idle = capacity.needed(Load(orders_per_second=0), retention=MONTH)

    assert {role.processes for role in idle.roles if role.sessions} == {1}


def test_the_command_calculates_the_needs_of_five_thousand_orders_a_second(run):
    answer = run("capacity", "--orders-per-second", "5000", "--format", "json")
    needs = json.loads(answer.out)

    assert needs["cores"] == sum(role["cores"] for role in needs["roles"])
    assert needs["database_sessions"] == sum(role["sessions"] for role in needs["roles"]) > 100
    assert needs["broker_messages_per_second"] == 5000 * (1 + 2)
    assert set(needs["disk_bytes_per_day"]) >= {"orders_order", "outbox_outboxmessage"}
    for word in ("relay", "broker messages/s", "GB a day", "sessions"):
        assert word in run("capacity", "--orders-per-second", "5000").out


def test_a_benchmark_report_replaces_the_default_costs(run, tmp_path):
    point = max(POINTS, key=lambda point: pipeline(point)["cpu"]["orders"])
    report = tmp_path / "benchmark.json"
    report.write_text(json.dumps(point))
    needs = json.loads(run("capacity", orders_per_second=100, format="json", report=report).out)

    busy = {role["name"]: role["busy"] for role in needs["roles"]}
    assert busy["orders"] == pytest.approx(100 * pipeline(point)["cpu"]["orders"] / 1000)


@pytest.mark.parametrize("content", ["", "{}", '{"results": [], "arguments": {"broker": "redis"}}'])
def test_a_report_that_lacks_the_pipeline_is_refused_with_a_sentence(run, tmp_path, content):
    report = tmp_path / "benchmark.json"
    report.write_text(content)

    assert "is not a usable report" in run("capacity", orders_per_second=1, report=report).error
    assert "must be 0 or more" in run("capacity", orders_per_second=-1).error


def test_the_document_matches_the_model():
    answers = [
        capacity.needed(Load(orders_per_second=rate, notifications_per_order=2), retention=MONTH)
        for rate in (100, 1000, 5000)
    ]
    document = (ROOT / "docs" / "scaling.md").read_text()

    for name, value in (
        *((f"{role.name}, cores", cores_of(role.name)) for role in answers[0].roles),
        *((f"{name}, processes", processes_of(name)) for name in ("orders", "notifications")),
        ("database sessions", lambda answer: answer.sessions),
        ("broker messages/s", lambda answer: answer.broker_messages_per_second),
        ("tables, GB a day", lambda answer: answer.bytes_a_day / 1e9),
        ("of these the outbox, GB in 30 days", lambda answer: 30 * answer.tables[-1].a_day / 1e9),
        ("write-ahead log, GB a day", lambda answer: answer.wal_bytes_a_day / 1e9),
    ):
        row = " | ".join(f"{value(answer):,.0f}" for answer in answers)
        assert f"| {name} | {row} |" in document


def cores_of(name):
    return lambda answer: next(role.cores for role in answer.roles if role.name == name)


def processes_of(name):
    return lambda answer: next(role.processes for role in answer.roles if role.name == name)
