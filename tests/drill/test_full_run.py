"""The drill itself, with every fault, on both brokers. CI runs a short one."""

import json
import os
import subprocess
import sys

import pytest

from orderflow.stack.problem import Problem
from orderflow.stack.servers import rabbitmq
from tests.processes import ROOT


def has_rabbitmq():
    try:
        rabbitmq.program()
    except Problem:
        return False
    return True


def drill(broker, report, *words):
    """Run a drill; assert that it passed, and return its report."""
    if broker[0] == "rabbitmq" and not has_rabbitmq():
        pytest.skip("RabbitMQ is not installed")
    ours = ("PYTEST", "COVERAGE", "DJANGO")
    done = subprocess.run(
        [sys.executable, "run.py", "chaos", *words, "--broker", *broker, "--report", str(report)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return json.loads((report / "chaos.json").read_text())


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "broker",
    [["redis"], ["rabbitmq"], ["rabbitmq", "--nodes", "3"], ["redis", "--pool", "prefork"]],
    ids=" ".join,
)
def test_nothing_is_lost_duplicated_stuck_or_late_under_all_faults(broker, tmp_path):
    result = drill(broker, tmp_path, "--orders", "500", "--duration", "120", "--seed", "7")
    assert result["passed"]
    assert ("kill-leader" in result["left_out"]) == ("--nodes" not in broker)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_slow_providers_and_channels_cause_no_copies(broker, tmp_path):
    words = ("--orders", "200", "--duration", "40", "--seed", "3", "--faults", "slow-provider,slow-channel")
    seen = drill([broker], tmp_path, *words)["copies"]
    assert seen["unexplained"] <= 0.01 * seen["deliveries"]
    assert seen["explained"] == 0
