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

BETWEEN_TRIES = 0.01
"""Seconds between two tries to begin."""


class Pool:
    """
    The deliveries that are running in one process, and, among the processes of a worker, the suspects.

    A child of a prefork pool runs one delivery at a time, so it is alone in its process anyway. There, suspects
    only wait for suspects in other children.

    Deliveries are named by tokens, and `leave` forgets a token wherever it is: an exception may end a thread
    at any line, because the pool gives up threads that hang. For the same reason the lock is a plain one, whose
    `with` statement cannot be interrupted, and threads wait by trying again.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._together: set[object] = set()
        self._suspects: set[object] = set()  # of those that run together
        self._alone: object = None
        self._in_line: set[object] = set()
        self._waiting: set[object] = set()  # others, while suspects run
        self._closed_at: float | None = None
        self._open_until = 0.0
        self._abandoned: list[threading.Thread] = []
        self._file: IO[bytes] | None = None

    def share(self, file: IO[bytes]) -> None:
        """Share a lock file with the processes that are forked later; a process that ends releases its lock."""
        self._file = file

    def is_certain(self, token: object) -> bool:
        """Return whether nothing runs beside this delivery, not even an abandoned thread."""
        with self._guard:
            self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
            return self._alone is token and not self._abandoned

    def enter(self, token: object, *, wait: float | None = None) -> bool:
        """Begin together with others; return whether it was possible within `wait` seconds (`PATIENCE`)."""
        until = time.monotonic() + (PATIENCE if wait is None else wait)
        while True:
            with self._guard:
                self._reopen_if_due()
                if self._alone is None and self._closed_at is None:
                    self._waiting.discard(token)
                    self._together.add(token)
                    return True
                self._waiting.add(token)
            if time.monotonic() >= until:
                self.leave(token)
                return False
            time.sleep(BETWEEN_TRIES)

    def suspect(self, token: object) -> bool:
        """Make one of those that run together a suspect, unless one runs alone in another process."""
        with self._guard:
            if not (self._suspects or self._lock(fcntl.LOCK_SH)):
                return False
            self._suspects.add(token)
            return True

    def enter_alone(self, token: object, *, wait: float) -> bool:
        """Begin when no other delivery is running; return whether that was possible within `wait` seconds."""
        until = time.monotonic() + wait
        while True:
            with self._guard:
                if token not in self._in_line and len(self._in_line) >= MOST_IN_LINE:
                    return False
                self._in_line.add(token)
                if self._may_be_alone():
                    self._in_line.discard(token)
                    self._alone = token
                    return True
            if time.monotonic() >= until:
                self.leave(token)
                return False
            time.sleep(BETWEEN_TRIES)

    def leave(self, token: object) -> None:
        """Undo all of the above for this delivery. Doing it again has no effect."""
        with self._guard:
            for others in (self._together, self._in_line, self._waiting):
                others.discard(token)
            was_alone, was_suspect = self._alone is token, token in self._suspects
            self._suspects.discard(token)
            if was_alone:
                self._alone = None
            if was_alone or (was_suspect and not self._suspects):
                self._unlock()
            self._reopen_if_due()

    def abandon(self, token: object, thread: threading.Thread) -> None:
        """Let others begin although the thread of this delivery has not ended."""
        self.leave(token)
        with self._guard:
            self._abandoned.append(thread)

    def _may_be_alone(self) -> bool:
        now = time.monotonic()
        self._reopen_if_due()
        if self._alone is not None or (self._closed_at is None and now < self._open_until):
            return False
        if self._closed_at is None:
            self._closed_at = now  # the next ones wait until those that are running have ended
        return not self._together and self._lock(fcntl.LOCK_EX)

    def _reopen_if_due(self) -> None:
        if self._closed_at is None or self._alone is not None:
            return
        closed_for = time.monotonic() - self._closed_at
        if self._in_line and (closed_for < LONGEST_ALONE or not self._waiting):
            return
        if self._waiting:
            self._open_until = time.monotonic() + closed_for
        self._closed_at = None

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
