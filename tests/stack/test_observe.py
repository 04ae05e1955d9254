"""`run.py observe`: Debian's Prometheus and Alertmanager beside a stack of stand-ins, with our alerts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request

import psutil
import pytest

from orderflow.stack.checkout import folders
from orderflow.stack.servers import monitoring
from tests.stack import wait_until
from tests.stack.test_commands import checkout, environment, read, run, start  # noqa: F401

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture
def observed(checkout):  # noqa: F811
    """The checkout, with the alerts as well."""
    shutil.copytree(folders.ROOT / "orderflow" / "alerts", checkout / "orderflow" / "alerts")
    return checkout


@pytest.fixture
def programs():
    missing = [
        names[0]
        for names in (monitoring.PROMETHEUS, monitoring.ALERTMANAGER)
        if not any(map(shutil.which, names))
    ]
    if missing:
        pytest.skip(f"not installed here: {', '.join(missing)} (Debian: apt-get install {' '.join(missing)})")


def observe(observed, *words):
    """Start the command; return it, and the addresses that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "orderflow.stack", "observe", *words],
        cwd=observed,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    addresses, printed = {}, []
    for line in process.stdout:
        printed.append(line)
        if " http://127.0.0.1:" in line:
            name, address = line.split(maxsplit=1)
            addresses[name] = address.strip()
        if line.startswith("Ctrl-C"):
            return process, addresses
    raise AssertionError("".join(printed))


def ask(address, path):
    with _opener.open(f"{address.rpartition('/')[0]}/{path}", timeout=5) as answer:
        return json.load(answer)["data"]


def receivers(addresses):
    return [each["url"] for each in ask(addresses["alerts"], "api/v1/alertmanagers")["activeAlertmanagers"]]


def scraped(addresses):
    return {
        target["labels"]["instance"] for target in ask(addresses["alerts"], "api/v1/targets")["activeTargets"]
    }


def end(process):
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(10) == 0, process.stdout.read()


def test_without_the_programs_it_says_how_to_install_them(observed, tmp_path):
    (tmp_path / "prometheus").write_text("#!/bin/sh\n")
    (tmp_path / "prometheus").chmod(0o755)

    done = run(observed, "observe", PATH=str(tmp_path))

    assert done.returncode == 1
    assert done.stderr.startswith(
        "Not installed here, or not on PATH: alertmanager. Install both (Debian: apt-get"
    )
    assert read(observed) is None, "nothing was started"


@pytest.mark.slow
def test_it_observes_a_running_stack_and_continues_when_that_stops(observed, programs):
    stack = start(observed, "up")
    process, addresses = observe(observed)
    try:
        assert stack.poll() is None
        rules = ask(addresses["alerts"], "api/v1/rules?type=alert")
        names = {rule["name"] for group in rules["groups"] for rule in group["rules"]}
        assert {"OrdersStuck", "WorkerGone", "MetricsAbsent"} <= names
        receiver = f"{addresses['Alertmanager']}/api/v2/alerts"
        wait_until(lambda: receivers(addresses) == [receiver], process)  # it looks for it every five seconds
        wait_until(lambda: scraped(addresses) >= {"orders", "relay", "web", "beat", "metrics"}, process)
        assert {each.laddr.ip for each in listening(process)} == {"127.0.0.1"}

        again = run(observed, "observe")
        assert again.returncode == 3
        assert again.stderr.startswith("`python3 run.py observe` is running in this checkout.")

        assert run(observed, "down").returncode == 0
        assert stack.wait(5) == 0
        assert run(observed, "reset").returncode == 3
        assert ask(addresses["alerts"], "api/v1/rules")["groups"]
    finally:
        end(process)

    state = observed / ".orderflow"
    assert any((state / "monitoring" / "prometheus").iterdir())
    assert run(observed, "reset").returncode == 0
    assert not (state / "monitoring").exists()


@pytest.mark.slow
def test_without_a_running_stack_it_starts_one_and_stops_it_again(observed, programs):
    process, addresses = observe(observed)
    try:
        wait_until(lambda: (read(observed) or {}).get("ready"), process)
        assert {"admin", "API", "alerts", "Alertmanager"} <= addresses.keys()
        assert {"web", "relay", "prometheus", "alertmanager"} <= read(observed)["processes"].keys()
        killed = read(observed)["processes"]["prometheus"]["pid"]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: read(observed)["processes"]["prometheus"]["pid"] not in (None, killed), process)
        wait_until(lambda: read(observed)["processes"]["prometheus"]["state"] == "ready", process)
        assert ask(addresses["alerts"], "api/v1/rules")["groups"]
    finally:
        end(process)
    assert run(observed, "status").returncode == 1


def listening(process):
    """Return what the command and its children listen on."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return [each for member in family for each in member.net_connections() if each.status == psutil.CONN_LISTEN]
