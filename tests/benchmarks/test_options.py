"""The command line is read before anything starts, without Django."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import cli, options, scenarios
from benchmarks.harness import Contestant, Sample
from tests.processes import ROOT


def test_every_scenario_can_be_loaded():
    assert all(callable(scenarios.load(name)) for name in options.SCENARIOS)


def test_a_scenario_that_does_not_exist_is_named(capsys):
    with pytest.raises(SystemExit) as ended:
        options.read(["pipelines"])
    assert ended.value.code == 2
    assert "no such scenario: pipelines" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--rounds", "0"], ["--size", "0"], ["--broker", "kafka"], ["--pool", "gevent"]]
)
def test_invalid_options_are_refused(words):
    with pytest.raises(SystemExit) as ended:
        options.read(words)
    assert ended.value.code == 2


def test_scenarios_run_in_their_own_order_whatever_was_typed():
    assert cli.chosen(options.read(["relay", "counts"])) == ["counts", "relay"]


def test_the_soak_runs_only_when_it_is_named():
    assert "soak" not in cli.chosen(options.read([]))
    assert cli.chosen(options.read(["soak"])) == ["soak"]


def test_a_quick_run_is_small():
    chosen = options.read(["--quick"])
    assert cli.options_of(chosen).scaled(10_000, 500) == 500
    assert cli.options_of(chosen).rounds == 1


def test_reading_the_command_line_needs_no_django():
    code = "import sys, benchmarks.options; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_pools_are_of_threads_unless_named():
    assert cli.options_of(options.read([])).pool == "threads"
    assert cli.options_of(options.read(["--pool", "prefork"])).pool == "prefork"


def test_scenarios_too_long_to_repeat_unasked_know_what_was_asked():
    assert cli.options_of(options.read([])).rounds_named == 0
    assert cli.options_of(options.read(["--rounds", "2"])).rounds_named == 2


def test_what_takes_long_is_not_in_a_quick_run_and_the_longest_run_only_when_named():
    quick, usual = cli.chosen(options.read(["--quick"])), cli.chosen(options.read([]))
    assert not {"startup", "consumers"} & set(quick)
    assert {"waiting", "startup"} <= set(usual)
    assert "consumers" not in usual


def test_systems_are_chosen_by_the_beginning_of_their_names():
    chosen = cli.options_of(options.read(["waiting", "--only", "orderflow, 200", "naive"]))
    there = [
        Contestant(name=name, run=lambda: Sample(value=1.0), baseline=baseline)
        for name, baseline in (("naive", ""), ("orderflow, 200 ms", "naive"), ("orderflow, 500 ms", "naive"))
    ]
    assert [one.name for one in chosen.chosen(there)] == ["naive", "orderflow, 200 ms"]


def test_a_system_whose_baseline_does_not_run_has_none():
    chosen = cli.options_of(options.read(["--only", "orderflow"]))
    [ours] = chosen.chosen([Contestant(name="orderflow", run=lambda: Sample(value=1.0), baseline="naive")])
    assert ours.baseline == ""


def test_all_systems_run_unless_named():
    there = [Contestant(name=name, run=lambda: Sample(value=1.0)) for name in ("naive", "orderflow")]
    assert cli.options_of(options.read([])).chosen(there) == there
