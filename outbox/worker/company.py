"""
Which deliveries may run at the same time in one worker: most of them together, a suspect alone.

A process that dies takes all its threads along. Only a message that was running alone is certainly the cause,
so `losses` runs suspects alone, and everything else of the process waits meanwhile. It waits for a moment:
phases in which suspects run alternate with phases in which everything else does.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from typing import IO

PATIENCE = 3.0
"""Seconds that a delivery waits in its thread for its turn. Then it is sent again and waits in the broker."""

LONGEST_ALONE = 2.0
"""Seconds after which suspects let the others run, for as long as these had to wait. A suspect that has begun
is not interrupted."""

MOST_IN_LINE = 2
"""Maximum number of suspects that wait in their threads to run alone; the threads are needed by the others."""

BETWEEN_TRIES = 0.02
"""Seconds between two tries to get a lock that another process holds."""


class Pool:
    """
    The deliveries that are running in one process, and, among the processes of a worker, the suspects.

    A child of a prefork pool runs one delivery at a time, so it is alone in its process anyway. There, suspects
    only wait for suspects in other children.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = 0
        self._suspects = 0  # of those that run together
        self._is_alone = False
        self._in_line = 0
        self._waiting = 0  # others, while suspects run
        self._closed_at: float | None = None
        self._open_until = 0.0
        self._abandoned = 0
        self._file: IO[bytes] | None = None

    def share(self, file: IO[bytes]) -> None:
        """Share a lock file with the processes that are forked later; a process that ends releases its lock."""
        self._file = file

    @property
    def is_certain(self) -> bool:
        """Whether nothing runs beside the delivery that is alone, not even an abandoned thread."""
        return self._is_alone and not self._abandoned

    def enter(self, *, wait: float = PATIENCE) -> bool:
        """Begin together with others; return whether it was possible within `wait` seconds."""
        with self._changed:
            self._waiting += 1
            try:
                if not self._changed.wait_for(lambda: not self._is_closed(), timeout=wait):
                    return False
            finally:
                self._waiting -= 1
            self._together += 1
            return True

    def suspect(self) -> bool:
        """Make one of those that run together a suspect, unless one runs alone in another process."""
        with self._changed:
            if not (self._suspects or self._lock(fcntl.LOCK_SH)):
                return False
            self._suspects += 1
            return True

    def enter_alone(self, *, wait: float = PATIENCE) -> bool:
        """Begin when no other delivery is running; return whether that was possible within `wait` seconds."""
        until = time.monotonic() + wait
        with self._changed:
            if self._in_line >= MOST_IN_LINE:
                return False
            self._in_line += 1
            try:
                while not self._may_be_alone():
                    left = until - time.monotonic()
                    if left <= 0:
                        return False
                    self._changed.wait(min(left, BETWEEN_TRIES))
                self._is_alone = True
                return True
            finally:
                self._in_line -= 1
                self._reopen_if_due()

    def leave(self, *, alone: bool = False, suspected: bool = False) -> None:
        """Undo a successful `enter` or `enter_alone`, and `suspect`."""
        with self._changed:
            if alone:
                self._is_alone = False
                self._unlock()
                self._reopen_if_due()
            else:
                self._together -= 1
                self._suspects -= suspected
                if suspected and not self._suspects:
                    self._unlock()
            self._changed.notify_all()

    def abandon(self) -> None:
        """Take into account a thread that goes on although its delivery has ended; see `end_abandoned`."""
        with self._changed:
            self._abandoned += 1

    def end_abandoned(self) -> None:
        """Forget an abandoned thread, because it has ended."""
        with self._changed:
            self._abandoned -= 1

    def _is_closed(self) -> bool:
        self._reopen_if_due()
        return self._is_alone or self._closed_at is not None

    def _may_be_alone(self) -> bool:
        now = time.monotonic()
        self._reopen_if_due()
        if self._is_alone or (self._closed_at is None and now < self._open_until):
            return False
        if self._closed_at is None:
            self._closed_at = now  # the next ones wait until those that are running have ended
        return not self._together and self._lock(fcntl.LOCK_EX)

    def _reopen_if_due(self) -> None:
        if self._closed_at is None or self._is_alone:
            return
        closed_for = time.monotonic() - self._closed_at
        if self._in_line and (closed_for < LONGEST_ALONE or not self._waiting):
            return
        if self._waiting:
            self._open_until = time.monotonic() + closed_for
        self._closed_at = None
        self._changed.notify_all()

    def _lock(self, kind: int) -> bool:
        if self._file:
            with contextlib.suppress(BlockingIOError, PermissionError):
                fcntl.lockf(self._file, kind | fcntl.LOCK_NB)
                return True
            return False
        return True

    def _unlock(self) -> None:
        if self._file:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
