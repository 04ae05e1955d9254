"""The drill itself, with every fault, in front of both brokers. CI has a short one."""

import json
import os
import subprocess
import sys

import pytest

from orderflow.stack import rabbitmq
from orderflow.stack.problem import Problem
from tests.processes import ROOT


def has_rabbitmq():
    try:
        rabbitmq.program()
    except Problem:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_nothing_is_lost_doubled_or_late_whatever_breaks(broker, tmp_path):
    if broker == "rabbitmq" and not has_rabbitmq():
        pytest.skip("RabbitMQ is not installed")
    command = [sys.executable, "run.py", "chaos", "--orders", "500", "--duration", "120", "--seed", "7"]
    ours = ("PYTEST", "COVERAGE", "DJANGO")
    done = subprocess.run(
        [*command, "--broker", broker, "--report", str(tmp_path)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert json.loads((tmp_path / "chaos.json").read_text())["passed"]
