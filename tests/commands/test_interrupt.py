"""Ctrl-C ends a command with the exit code that shells expect, and without a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.processes import ROOT

WAIT = "import time; print('waiting', flush=True); time.sleep(60)"


@pytest.mark.slow
def test_ctrl_c_ends_a_command_without_a_traceback():
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", WAIT]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)

    assert (process.returncode, error.strip()) == (130, "Interrupted.")
