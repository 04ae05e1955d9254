"""With JSON logs, every line of every program is JSON, redacted, and without query strings."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request

import pytest

from orderflow.stack import ports
from tests.processes import ROOT, environment, eventually

PROGRAMS = {
    "worker": (["celery", "-A", "orderflow", "worker", "-Q", "email", "-P", "solo"], "Cannot connect"),
    "beat": (["celery", "-A", "orderflow", "beat"], "beat: Starting"),
    "flower": (["celery", "-A", "orderflow", "flower", "--address=127.0.0.1", "--port={port}"], "Visit me at"),
    "web": (
        [
            "gunicorn", "orderflow.wsgi", "--bind=127.0.0.1:{port}", "--worker-class=gthread",
            "--no-control-socket", "--access-logfile=-",
        ],
        "Booting worker",
    ),
}  # fmt: skip


class Program:
    """A program whose servers are unreachable, and its output."""

    def __init__(self, name, log):
        words, self.ready = PROGRAMS[name]
        self.port, self.log = ports.choose(), log
        nowhere = f"127.0.0.1:{ports.choose()}"
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", *[word.format(port=self.port) for word in words]],
                cwd=ROOT,
                env={
                    "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1", "ORDERFLOW_ENV": "test",
                    "LOG_FORMAT": "json",
                    "SECRET_KEY": "a-secret-of-this-test", "ALLOWED_HOSTS": "127.0.0.1",
                    "DATABASE_URL": f"postgresql://nobody:pass-word@{nowhere}/nothing",
                    "BROKER_URL": f"redis://:pass-word@{nowhere}/0", "FLOWER_UNAUTHENTICATED_API": "true",
                },
                stdout=output,
                stderr=output,
            )  # fmt: skip

    def text(self):
        return self.log.read_text()

    def wait_for(self, words):
        eventually(lambda: words in self.text() or self._popen.poll() is not None, lambda: self.text()[-2000:])

    def end(self):
        if self._popen.poll() is None:
            self._popen.terminate()
        self._popen.wait(30)


@pytest.fixture
def start(tmp_path):
    started = []

    def start(name):
        started.append(Program(name, tmp_path / f"{name}.log"))
        return started[-1]

    yield start
    for program in started:
        program.end()


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_line_of_a_program_is_json_where_that_is_set(name, start):
    program = start(name)
    program.wait_for(program.ready)
    program.end()

    assert program.ready in program.text()
    for line in program.text().splitlines():
        assert set(json.loads(line)) >= {"event", "level", "logger"}, line
    assert "pass-word" not in program.text()


FAILING = """
import threading
import django; django.setup()
from orderflow.observability import logs
logs.configure_logging()
def fail(): raise RuntimeError("redis://:pass-word@nowhere does not answer")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


@pytest.mark.slow
def test_an_error_that_ends_a_process_or_a_thread_is_json_and_redacted():
    settings = {**environment(), "DJANGO_SETTINGS_MODULE": "orderflow.settings", "LOG_FORMAT": "json"}
    ended = subprocess.run(
        [sys.executable, "-c", FAILING], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60
    )

    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert ended.returncode == 1
    assert [(line["event"], line["level"]) for line in lines] == [("uncaught exception", "critical")] * 2
    assert all("does not answer" in line["exception"] for line in lines)
    assert "pass-word" not in ended.stderr


@pytest.mark.slow
def test_the_access_log_names_the_request_and_no_query(start):
    web = start("web")
    web.wait_for(web.ready)
    url = f"http://127.0.0.1:{web.port}/livez"

    def answers(path):
        request = urllib.request.Request(f"{url}{path}", headers={"Referer": f"{url}?token=hidden-one"})
        try:
            return urllib.request.urlopen(request, timeout=10).status == 200
        except OSError:
            return False

    eventually(lambda: answers("?email=ada@example.com&password=hidden-two"), web.text)
    web.wait_for("request.answered")
    web.end()

    [line, *_] = [json.loads(line) for line in web.text().splitlines() if "request.answered" in line]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/livez", "200")
    assert line["correlation_id"]
    for secret in ("hidden-one", "hidden-two", "ada@"):
        assert secret not in web.text()
