"""
The state of a running stack, for other commands of the same checkout: which process holds it, and its address.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.problem import ALREADY_RUNNING, Problem
from orderflow.stack.supervision import children

STACK = "the stack"
JUST_BEGUN = "a command that has just begun"
OLD_PROCESSES = "units"
"""The former name of `Run.processes` in the file: a stack started by older code can still be stopped."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The holder of the lock. `environment` is the environment of its processes."""

    pid: int
    what: str
    started_at: float
    ready: bool = False
    url: str = ""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    processes: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def hold(folders: StackFolders, what: str) -> Iterator[None]:
    """
    Hold the lock of this checkout. The kernel releases it when this process ends for any reason, so it cannot
    be stale.

    Raises:
        Problem: if another process holds it (exit code 3).
    """
    folders.prepare()
    with folders.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise in_use(read(folders)) from None
        _end_leftovers(read(folders))
        folders.run.unlink(missing_ok=True)
        try:
            yield
        finally:
            folders.run.unlink(missing_ok=True)


@contextlib.contextmanager
def hold_monitoring(folders: StackFolders) -> Iterator[None]:
    """
    Hold the lock of this checkout's Prometheus and Alertmanager, which may run beside a stack or without one.

    Raises:
        Problem: if they are running already (exit code 3).
    """
    folders.prepare()
    with folders.monitoring_lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(
                "`python3 run.py observe` is running in this checkout. End it with Ctrl-C in its terminal.",
                exit_code=ALREADY_RUNNING,
            ) from None
        yield


def running(folders: StackFolders) -> Run | None:
    """Return the holder of this checkout, or None if there is none."""
    try:
        with folders.lock.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return read(folders) or Run(pid=0, what=JUST_BEGUN, started_at=0.0)
    return None


def read(folders: StackFolders) -> Run | None:
    """Return what the last holder wrote, whether or not it is still running."""
    try:
        written = json.loads(folders.run.read_text())
        if OLD_PROCESSES in written:
            written["processes"] = written.pop(OLD_PROCESSES)
        return Run(**written)
    except (OSError, ValueError, TypeError):
        return None


def write(folders: StackFolders, run: Run) -> None:
    """Replace the file that other commands read. Only this account may read it: it contains passwords."""
    write_private(folders.run, json.dumps(dataclasses.asdict(run), indent=1))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, atomically."""
    half = path.with_suffix(f".{os.getpid()}")
    half.unlink(missing_ok=True)
    with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    half.replace(path)


def _end_leftovers(run: Run | None) -> None:
    """Kill what a killed supervisor left running, on systems where the kernel does not (macOS)."""
    for name, process in run.processes.items() if run else ():
        pid = process["pid"]
        # PostgreSQL is left to the next start, which can stop it without a recovery. The process id alone
        # proves nothing: it may belong to another process by now.
        if pid and name != "postgres" and children.command_line(pid) == process["command"]:
            children.end_group(pid)


def in_use(run: Run | None) -> Problem:
    """Return the error for a command that cannot run while this run holds the checkout."""
    if run is None or run.what == JUST_BEGUN:
        text = "Another command of this checkout has just begun. Try again in a moment."
    elif run.what != STACK:
        text = (
            f"`{run.what}` is running in this checkout (process {run.pid}). Wait for its end, then try again."
        )
    else:
        where = f" at {run.url}" if run.url else ""
        text = (
            f"OrderFlow is already running here{where} (process {run.pid}). Stop it with: python3 run.py down"
        )
    return Problem(text, exit_code=ALREADY_RUNNING)
