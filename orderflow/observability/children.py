"""
Memory and processor time of this process's children, read from the kernel when somebody asks.

A child of a prefork pool or a web worker of Gunicorn has no port of its own: its main process answers for it.
Where there is no /proc, nothing is known of living children.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
"""Processor time is given in this many parts of a second (proc(5))."""

PAGE = os.sysconf("SC_PAGE_SIZE")

STATE, USER, SYSTEM, RESIDENT = 0, 11, 12, 21
"""Fields of /proc/PID/stat, counted from the one behind the name (proc(5))."""

ENDED = ("Z", "X")
"""States of a child that has ended and is not collected yet. The kernel still has its processor time."""


class Children(NamedTuple):
    """The children of a process."""

    processes: int
    memory: int
    """In bytes; shared pages are counted for each."""
    seconds: float
    """Processor time, also of those that have ended."""


def read() -> Children:
    """
    Return the children of this process as they are now.

    A child that is collected meanwhile is missing from the processor time, which the next reading has again.
    """
    times = os.times()
    processes, memory, seconds = 0, 0, times.children_user + times.children_system
    for pid in _ids():
        fields = _fields(pid)
        if not fields:
            continue
        seconds += (int(fields[USER]) + int(fields[SYSTEM])) / TICKS
        if fields[STATE] not in ENDED:
            processes += 1
            memory += int(fields[RESIDENT]) * PAGE
    return Children(processes, memory, seconds)


def _ids() -> list[str]:
    found: list[str] = []
    for thread in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has just ended
            found += thread.read_text().split()
    return found


def _fields(pid: str) -> list[str]:
    """The fields behind the process's name, which may contain spaces; empty if it has just ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []
