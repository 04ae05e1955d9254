"""The matrix itself: faults in a real stack, a real Prometheus and Alertmanager, and the runbooks' commands."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from orderflow.alerts.matrix import cases
from orderflow.stack.servers import monitoring
from tests.processes import ROOT

pytestmark = pytest.mark.skipif(
    not all(any(map(shutil.which, names)) for names in (monitoring.PROMETHEUS, monitoring.ALERTMANAGER)),
    reason="Prometheus or Alertmanager is not installed (Debian: prometheus, prometheus-alertmanager)",
)


def prove(report, *words):
    """Run the matrix; assert that it passed, and return its result."""
    ours = ("PYTEST", "COVERAGE", "DJANGO")
    done = subprocess.run(
        [sys.executable, "run.py", "alerts", "--report", str(report), *words],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return json.loads((report / "alerts.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_few_faults_raise_their_alerts_and_their_runbooks_clear_them(tmp_path):
    names = ["worker-gone", "changed-by-hand", "exporter-gone"]
    result = prove(tmp_path, "--cases", ",".join(names), "--healthy", "100")
    assert [outcome["case"] for outcome in result["outcomes"]] == names
    assert all(row["cleared_after"] is not None for one in result["outcomes"] for row in one["rows"])


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_each_fault_raises_exactly_its_alerts_and_its_runbook_clears_them(tmp_path, broker):
    result = prove(tmp_path, "--broker", broker)
    assert len(result["outcomes"]) == len(cases.CASES)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_each_fault_raises_exactly_its_alerts_with_processes_instead_of_threads(tmp_path):
    assert prove(tmp_path, "--pool", "prefork")["passed"]
