"""Gunicorn's main process serves the metrics, also of its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request

import psutil
import pytest

from orderflow.stack import ports
from tests.metrics import scraping
from tests.processes import ROOT, environment, eventually

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def web(world, tmp_path):
    running = []

    def web(*options, workers=2):
        port, metrics_port = ports.choose(), ports.choose()
        command = ["gunicorn", "orderflow.wsgi", f"--bind=127.0.0.1:{port}", f"--workers={workers}"]
        with (tmp_path / "web.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command, "--no-control-socket", *options],
                cwd=ROOT,
                env=environment() | {"METRICS_PORT": str(metrics_port), "ALLOWED_HOSTS": "127.0.0.1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        running.append(process)
        eventually(lambda: answers(port), lambda: (tmp_path / "web.log").read_text()[-3000:])
        return process, metrics_port

    yield web
    for process in running:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.mark.parametrize("options", [["--preload"], []], ids=["preloaded", "loaded by workers"])
def test_the_web_server_serves_its_metrics_with_those_of_its_workers(web, options):
    process, port = web(*options)

    eventually(lambda: scraping.when_served(port)["orderflow_child_processes",] == 2, "two workers")
    samples = scraping.read(port)
    children = psutil.Process(process.pid).children()
    memory = sum(child.memory_info().rss for child in children)
    assert samples["orderflow_child_processes_resident_memory_bytes",] == pytest.approx(memory, rel=0.2)
    assert samples["process_resident_memory_bytes",] > 0

    before = samples["orderflow_child_processes_cpu_seconds_total",]
    children[0].kill()
    eventually(lambda: scraping.read(port)["orderflow_child_processes",] == 2, "it was replaced")
    assert scraping.read(port)["orderflow_child_processes_cpu_seconds_total",] >= before


def test_workers_of_the_web_server_do_not_keep_its_port(web):
    process, port = web("--preload")
    scraping.when_served(port)
    [child, *_] = psutil.Process(process.pid).children()
    listening = {each.laddr.port for each in child.net_connections() if each.status == psutil.CONN_LISTEN}

    assert port not in listening
