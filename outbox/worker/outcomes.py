"""The outcomes of tasks in threads, until the main loop takes them: a queue that wakes the loop."""

from __future__ import annotations

import collections
import contextlib
import socket
from collections.abc import Iterator
from typing import Any


class Outcomes:
    """A queue from any thread to one that waits for its file. Many outcomes wake it once."""

    def __init__(self) -> None:
        self._queue: collections.deque[Any] = collections.deque()
        self._is_woken = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __len__(self) -> int:
        return len(self._queue)

    def fileno(self) -> int:
        """Return the file that is readable when there is something to take."""
        return self._reader.fileno()

    def put(self, outcome: Any) -> None:
        """Add one and wake the loop."""
        self._queue.append(outcome)
        self.wake()

    def wake(self) -> None:
        """Wake the loop, unless it has been woken already. May be called by a signal handler."""
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(OSError):  # closed, or so full that the loop is woken anyhow
                self._writer.send(b"\0")

    def take(self) -> Iterator[Any]:
        """Take all that are there. If the caller stops early, the loop is woken again."""
        with contextlib.suppress(OSError):
            self._reader.recv(4096)
        self._is_woken = False  # after reading: the byte of an outcome that comes now must not be read
        try:
            while self._queue:
                yield self._queue.popleft()
        finally:
            if self._queue:
                self.wake()

    def wait(self, seconds: float) -> None:
        """Wait until there is something to take, but only for so long."""
        if self._queue:
            return
        self._reader.settimeout(seconds)
        try:
            with contextlib.suppress(OSError):
                self._reader.recv(1, socket.MSG_PEEK)
        finally:
            self._reader.setblocking(False)


def acknowledge(hub: Any) -> None:
    """Send the acknowledgements of what has ended while the pool stops. Celery can do that since 5.7."""
    from celery.concurrency import prefork  # here: it takes two megabytes

    if run := getattr(prefork, "_run_ready_callbacks", None):
        run(hub)
