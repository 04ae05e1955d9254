"""Python environments with the outbox's wheel and chosen versions of what it needs, from the package index."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.processes import ROOT

UNREACHABLE = re.compile("No matching distribution|Connection|Temporary failure|Could not find a version")
"""What pip says when no index answers, or the index has no such version."""

USUAL = ("psycopg[binary]", "celery[redis]")

_wheels: dict[str, Path] = {}


class Missing(Exception):
    """What is needed for an environment is neither on this machine nor in the index."""


def interpreter(version: str) -> str:
    """
    The path of Python `3.x` on this machine: on PATH, or among the versions of pyenv.

    Raises:
        Missing: if there is none.
    """
    candidates = [shutil.which(f"python{version}")]
    candidates += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"), reverse=True)
    for candidate in filter(None, candidates):
        # A shim of pyenv exists for versions that are not switched on, too, and fails.
        says = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False, timeout=30)
        if says.stdout.startswith(f"Python {version}."):
            return str(candidate)
    raise Missing(f"no Python {version} on this machine")


def pip(python: str | Path, *arguments: str) -> str:
    """
    Run pip; return what it printed.

    Raises:
        Missing: if the index cannot be reached, or has no such version.
    """
    done = subprocess.run(
        [python, "-m", "pip", *arguments], capture_output=True, text=True, timeout=500, check=False,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    if done.returncode and UNREACHABLE.search(done.stderr):
        raise Missing(f"not in the package index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def wheel(folder: Path, python: str | Path) -> Path:
    """The outbox's wheel, built by `python` in an environment of its own; once in a run."""
    if "outbox" not in _wheels:
        pip(python, "wheel", "--no-deps", "--wheel-dir", str(folder / "wheels"), str(ROOT / "outbox"))
        [_wheels["outbox"]] = (folder / "wheels").glob("*.whl")
    return _wheels["outbox"]


class Environment:
    """A virtual environment with the outbox and `requirements` in it."""

    def __init__(self, folder: Path, *, python: str, requirements: Sequence[str] = USUAL) -> None:
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"
        subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True, timeout=120)
        built = wheel(folder.parent, self.python)
        pip(self.python, "install", str(built), *requirements)

    def versions(self) -> str:
        """What is installed of what the outbox depends on, in one line."""
        listed = pip(self.python, "list", "--format", "freeze").splitlines()
        shown = ("django", "celery", "kombu", "psycopg", "redis", "amqp")
        return ", ".join(line for line in listed if line.lower().partition("==")[0] in shown)


def environment(folder: Path, version: str, requirements: Sequence[str] = USUAL) -> Environment:
    """An environment of Python `version`, or a skip that says what is missing."""
    try:
        return Environment(folder, python=interpreter(version), requirements=requirements)
    except Missing as missing:
        pytest.skip(str(missing))
