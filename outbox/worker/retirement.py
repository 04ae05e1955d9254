"""
When a worker with threads ends by itself, so that its supervisor starts another one.

A process can replace a child that hangs or has grown, but not a part of itself. So it takes no more tasks,
finishes or hands back those that run, and ends with an exit code that lets every supervisor start it again:

- when too many of its threads hang: they hold memory, and whatever else their tasks hold;
- when it has grown beyond `worker_max_memory_per_child`, which counts for the whole process;
- at once, when one thread holds the interpreter's lock for a minute, or the main loop has been stuck for that
  long, as when an interrupted thread has left a lock behind: then nothing can be finished, and a timer outside
  of Python ends the process, after a stack trace of all threads.

`worker_max_tasks_per_child` does not apply: ending a process with 32 threads every few seconds would cost more
than the memory that it bounds.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.worker import state

from outbox import telemetry

RETIRED = 75
"""The exit code of a worker that ended by itself: EX_TEMPFAIL, which supervisors take for a failure."""

LOOKED_AT_EVERY = 1.0
"""Seconds between two looks at the threads and the memory."""

LONGEST_DRAIN = 30.0
"""Seconds for which a worker that ends by itself lets tasks without a hard time limit go on."""

LONGEST_STANDSTILL = 60.0
"""Seconds after which a process ends whose threads or main loop cannot run. A process that is stopped for
longer, as by SIGSTOP, ends when it goes on; its messages have been delivered to others."""

PAGE = resource.getpagesize()

logger = logging.getLogger(__name__)


class Retirement:
    """Ends the worker of one pool when it should be replaced. `drain` tells the pool how long it may take."""

    def __init__(self, *, threads: int, memory: int | None, drain: Callable[[float], None]) -> None:
        self._threads, self._memory, self._drain = threads, memory, drain
        self._has_begun = False

    @property
    def most_hanging(self) -> int:
        """The number of hanging threads with which the worker ends: a quarter of its threads."""
        return max(2, self._threads // 4)

    def look(self, hanging: int) -> None:
        """End the worker if too many threads hang or the process has become too large."""
        if self._has_begun:
            return
        if hanging >= self.most_hanging:
            self._begin("threads", f"{hanging} of its threads hang", hanging=hanging)
        elif self._memory and (used := resident_kilobytes()) > self._memory:
            self._begin(
                "memory", f"it uses {used:,} kB of memory, of {self._memory:,} kB allowed", memory_kb=used
            )

    def _begin(self, reason: str, why: str, *, hanging: int = 0, memory_kb: int = 0) -> None:
        self._has_begun = True
        logger.error("The worker ends with exit code %s, to be started again: %s", RETIRED, why)
        telemetry.emit("worker.retired", reason=reason, hanging=hanging, memory_kb=memory_kb)
        self._drain(LONGEST_DRAIN)
        worker: Any = state
        if worker.should_stop is None:
            worker.should_stop = RETIRED


def resident_kilobytes() -> int:
    """Return the resident memory of this process, or its largest so far where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE // 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def watch_for_standstill(last_turn: Callable[[], float | None]) -> None:
    """
    End the process if nothing in it can run for a minute. Messages that it holds are delivered to others.

    `last_turn` returns when the main loop last turned, on the monotonic clock, or None while it need not turn.
    """
    seconds = LONGEST_STANDSTILL
    threading.Thread(target=_delay_the_end, args=[seconds, last_turn], name="standstill", daemon=True).start()


def _delay_the_end(seconds: float, last_turn: Callable[[], float | None]) -> None:
    pid = os.getpid()
    while pid == os.getpid():
        turned_at = last_turn()
        if turned_at is None or time.monotonic() - turned_at < seconds / 2:
            faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
        time.sleep(seconds / 6)
