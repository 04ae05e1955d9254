"""Every process refuses to start on an error of `check`, names the wrong setting, and queries no server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from orderflow.stack import ports
from tests.processes import ROOT
from tests.slow import but_first

CELERY = [sys.executable, "-m", "celery", "-A", "orderflow"]
ROLES = {
    "worker": [*CELERY, "worker", "-Q", "orders", "-c", "1"],
    "threads": [*CELERY, "worker", "-Q", "email", "-P", "threads", "-c", "2"],
    "relay": [*CELERY, "worker", "-Q", "relay", "-P", "solo"],
    "beat": [*CELERY, "beat"],
    "web": [sys.executable, "-m", "gunicorn", "orderflow.wsgi", "--no-control-socket"],
    "web, loaded before it forks": [
        sys.executable,
        "-m",
        "gunicorn",
        "orderflow.wsgi",
        "--preload",
        "--no-control-socket",
    ],
    "command": [sys.executable, "manage.py", "verify"],
}
BAD = {
    "OUTBOX_RETENTION_DAYS": "1",
    "PROVIDER_TIMEOUT_SECONDS": "7",
    "WAREHOUSE": "orders.adapters.no_such.Warehouse",
    "FCM_CREDENTIALS_FILE": "/no/such/file.json",
}


def start(role, **settings):
    """Run a process of this role, whose servers are unreachable, until it ends by itself."""
    nowhere = f"127.0.0.1:{ports.choose()}"
    environment = {
        "PATH": "/usr/bin:/bin",
        "SECRET_KEY": "startup",
        "DATABASE_URL": f"postgresql://nobody@{nowhere}/nothing",
        "BROKER_URL": f"redis://{nowhere}/0",
        "ORDERFLOW_ENV": "test",
        **settings,
    }
    bind = [f"--bind=127.0.0.1:{ports.choose()}"] if role.startswith("web") else []
    return subprocess.Popen(
        [*ROLES[role], *bind],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process):
    """Kill a process that did not end by itself, with its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def output_until(process, *texts):
    """Return its output up to one of the texts, or to its end."""
    output = ""
    for line in process.stdout:
        output += line
        if any(text in output for text in texts):
            break
    return output


@pytest.mark.parametrize("role", but_first(ROLES))
def test_a_process_refuses_to_start_with_settings_that_would_cause_trouble_later(role):
    process = start(role, **BAD)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        end(process)

    assert process.returncode != 0, output
    for name in ("OUTBOX_RETENTION_DAYS", "PROVIDER_TIMEOUT_SECONDS", "WAREHOUSE", "FCM_CREDENTIALS_FILE"):
        assert name in output
    assert "keep messages for at least" in output


STARTED = {
    "worker": "Cannot connect to",
    "threads": "Cannot connect to",
    "relay": "Cannot connect to",
    "beat": "beat: Connection error",
    "web, loaded before it forks": "Booting worker with pid",
}


@pytest.mark.slow
@pytest.mark.parametrize("role", STARTED)
def test_neither_a_warning_nor_a_database_outage_prevents_a_start(role):
    process = start(role)  # no provider is configured, which is a warning for each
    try:
        output = output_until(process, STARTED[role], "does not start")
        assert STARTED[role] in output
        assert process.poll() is None
    finally:
        end(process)
