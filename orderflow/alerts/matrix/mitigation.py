"""
The commands of a runbook, and how the matrix runs them.

They are the lines of the blocks marked `sh` below the heading “Mitigation” of docs/runbooks/<Alert>.md. Two
kinds can be run: commands of OrderFlow, and those of Compose that start a service again. What a person has to
edit, such as a setting, is prose there. The matrix has no containers: its process manager starts the service.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
RUNBOOKS = ROOT / "docs" / "runbooks"
OURS = (["python3", "run.py"], ["python", "manage.py"])
COMPOSE = (["docker", "compose", "up", "-d"], ["docker", "compose", "restart"], ["docker", "compose", "start"])
PATIENCE = 120.0
"""Seconds after which a command counts as hanging."""

_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SECTION = re.compile(r"^## Mitigation\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


class NotPossible(Exception):
    """A runbook has no commands, or one that the matrix cannot run or that has failed."""


def commands(alert: str, *, folder: Path = RUNBOOKS) -> list[str]:
    """
    Return the commands that the runbook of an alert gives for its mitigation.

    Raises:
        NotPossible: if there is no such runbook, or it has no commands.
    """
    path = folder / f"{alert}.md"
    if not path.exists():
        raise NotPossible(f"{alert} has no runbook {path}")
    section = _SECTION.search(path.read_text())
    blocks = _BLOCK.findall(section[1]) if section else []
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise NotPossible(f"{path.name} has no commands below “## Mitigation”")
    return found


def is_possible(command: str) -> bool:
    """Return whether the command is of a kind that can be run here."""
    words = shlex.split(command)
    return words[:2] in OURS or any(words[: len(beginning)] == beginning for beginning in COMPOSE)


def run(command: str, *, environment: Mapping[str, str], start: Callable[[Sequence[str]], None]) -> str:
    """
    Run one command and return its output; `start` starts services of Compose: those named, or all.

    A command may exit with 1 or 3: `verify` and `outbox_status` do that while something is wrong.

    Raises:
        NotPossible: if it is of no kind that can be run here, was called incorrectly or has crashed.
    """
    words = shlex.split(command)
    for beginning in COMPOSE:
        if words[: len(beginning)] == beginning:
            start(words[len(beginning) :])
            return ""
    if words[:2] not in OURS:
        raise NotPossible(f"the matrix cannot run: {command}")
    done = subprocess.run(  # noqa: S603 - from our own runbooks, as our own command
        [sys.executable, str(ROOT / "manage.py"), *words[2:]],
        env=dict(environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    output = done.stdout + done.stderr
    if done.returncode not in (0, 1, 3) or "Traceback (most recent call last)" in output:
        raise NotPossible(f"{command} exits with {done.returncode}: {output[-2000:]}")
    return output
