"""`manage.py chaos` uses only its own stack, unless the option for another one is given twice."""

import json

import pytest
from django.core.management import CommandError, call_command

from orderflow.chaos.faults import schedule
from orderflow.management.commands import chaos
from orderflow.stack import cli
from orderflow.stack.commands import drill


@pytest.mark.parametrize("words", [[], ["--not-my-own-stack"]])
def test_another_stack_is_refused_unless_the_option_is_given_twice(words):
    with pytest.raises(CommandError, match="give --not-my-own-stack twice"):
        call_command("chaos", *words)


def test_a_real_payment_provider_is_always_refused(settings):
    settings.STRIPE_API_BASE = ""
    with pytest.raises(CommandError, match="never places orders with a real provider"):
        call_command("chaos", "--not-my-own-stack", "--not-my-own-stack")


def test_faults_that_need_own_processes_are_left_out_of_another_stack(settings):
    settings.STRIPE_API_BASE = "http://127.0.0.1:1"
    options = {"orders": 5, "duration": 60, "seed": 7, "broker": "redis", "settle": 1, "faults": schedule.KINDS}
    plan = chaos.Command()._plan(None, **options)
    assert {fault.kind for fault in plan.schedule} == {
        "provider-drop-after",
        "slow-provider",
        "wrong-credentials",
        "duplicate-delivery",
        "clock-jump",
    }
    assert "--not-my-own-stack --not-my-own-stack" in plan.command
    assert plan.left_out.keys() == set(schedule.KINDS) - {fault.kind for fault in plan.schedule}
    assert plan.left_out["kill-leader"] == "needs the drill's own stack"


def test_a_stack_that_is_not_running_is_refused(tmp_path):
    (tmp_path / "ports.json").write_text(json.dumps({}))
    with pytest.raises(CommandError, match="No stack runs in"):
        call_command("chaos", "--home", str(tmp_path))


def test_an_unknown_fault_is_reported_before_anything_is_started(capsys):
    with pytest.raises(SystemExit):
        cli.main(["chaos", "--faults", "kill-everybody"])
    assert "no such fault: kill-everybody" in capsys.readouterr().err


def test_only_rabbitmq_has_nodes(capsys):
    with pytest.raises(SystemExit):
        cli.main(["chaos", "--nodes", "3"])
    assert "only --broker rabbitmq has nodes" in capsys.readouterr().err


def test_help_and_other_stacks_are_for_the_command_itself():
    assert drill.is_for_another_stack(["--help"])
    assert drill.is_for_another_stack(["--not-my-own-stack", "--not-my-own-stack"])
    assert not drill.is_for_another_stack(["--orders", "5"])
