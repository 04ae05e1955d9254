"""`run.py bench`: mistakes in the command line are reported before any server starts."""

from __future__ import annotations

import subprocess
import sys

from tests.processes import ROOT


def bench(*words):
    command = [sys.executable, "-m", "orderflow.stack", "bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_help_lists_the_scenarios():
    done = bench("--help")
    assert done.returncode == 0
    assert "pipeline" in done.stdout
    assert "--quick" in done.stdout


def test_a_wrong_scenario_starts_nothing():
    done = bench("pipelines")
    assert done.returncode == 2
    assert "no such scenario: pipelines" in done.stderr
    assert "Servers" not in done.stdout
