"""The environment with procrastinate, apart from the project's own: made when it is first needed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.processes import ROOT

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FOLDER = ROOT / ".orderflow" / "benchmark-venv"
STAMP = "installed.sha256"


class Unavailable(Exception):
    """The packages cannot be installed; the text gives the reason."""


def python(folder: Path = FOLDER, requirements: Path = REQUIREMENTS) -> str:
    """
    Return the environment's Python; install the packages if they are not there.

    Raises:
        Unavailable: if that fails, such as without a network.
    """
    program, stamp = folder / "bin" / "python", folder / STAMP
    wanted = hashlib.sha256(requirements.read_bytes() + os.path.realpath(sys.executable).encode()).hexdigest()
    with _only_one_at_a_time(folder):
        if not (program.exists() and stamp.exists() and stamp.read_text() == wanted):
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
            options = ("--disable-pip-version-check", "--progress-bar", "off", "--no-input", "--require-hashes")
            _run([*_pip(program), "install", *options, "-r", str(requirements)])
            stamp.write_text(wanted)
    return str(program)


@contextlib.contextmanager
def _only_one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process installs into this folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _pip(program: Path) -> list[str]:
    """The pip of this environment or of the Python behind it, for the new environment."""
    for candidate in (sys.executable, getattr(sys, "_base_executable", sys.executable)):
        if not subprocess.run([candidate, "-m", "pip", "--version"], capture_output=True).returncode:
            return [candidate, "-m", "pip", "--python", str(program)]
    raise Unavailable("there is no pip to install it with")


def _run(command: list[str]) -> None:
    # Variables of the caller would redirect what is installed where.
    unwanted = ("PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "VIRTUAL_ENV")
    clean = {name: value for name, value in os.environ.items() if name not in unwanted}
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise Unavailable(f"procrastinate cannot be installed: {words[-1]}")
