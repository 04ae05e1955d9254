"""How many processors and how much memory this process may use: the machine's, or the container's limits."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def cores() -> int:
    """Return the number of processors: those that are allowed, and no more than the quota of time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas())]))


def memory() -> int:
    """Return the bytes of memory: the machine's, and no more than the container's limit."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([installed, *_limits()])


def _quotas() -> Iterator[float]:
    """The processors that each group above this process may keep busy."""
    for folder in _groups("cpu"):
        limit = _numbers(folder / "cpu.max")
        limit = limit or [*_numbers(folder / "cpu.cfs_quota_us"), *_numbers(folder / "cpu.cfs_period_us")]
        if len(limit) == 2 and min(limit) > 0:
            yield limit[0] / limit[1]


def _limits() -> Iterator[int]:
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            yield from (int(limit) for limit in _numbers(folder / name)[:1])


def _groups(controller: str) -> Iterator[Path]:
    """The folders of the control groups of this process, of version 2 or 1, and of those above it."""
    with contextlib.suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            top = CGROUPS / controller if controllers else CGROUPS
            folder = top / path.lstrip("/")
            while folder != top:
                yield folder
                folder = folder.parent
            yield top


def _numbers(file: Path) -> list[float]:
    """The numbers in a file; none if it is missing or says that there is no limit."""
    try:
        return [float(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []
