"""
The file by which a worker or beat shows that its loop turns: `OUTBOX_LIVENESS_FILE`.

The loop itself touches it, about once a second, also while it waits for a broker that does not answer. A probe
compares the file's time with now and asks nobody: an outage of the broker or of the database restarts no
process, a loop that is stuck does. `docs/deployment.md` has the probes, decision 0046 the reasons.

A loop that waits for the database is not stuck. PostgreSQL may be suspended in the middle of a statement, and
nothing in the process can notice when it goes on; so a thread touches the file meanwhile. Other loops in the
same process, such as the relay's listener, register; while one of them is stuck the file is not touched.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.db.backends.signals import connection_created

from outbox.conf import settings

EVERY = 1.0
"""Seconds between two touches of the file."""

STUCK_AFTER = 45.0
"""Seconds after which a loop beside the main one counts as stuck: the longest turn of a listener takes three
batches whose broker does not answer. The main loop has no such limit: it does not touch the file."""

LONGEST_GAP = 60.0
"""Seconds without a touch after which a probe should fail. Loops turn at least every ten seconds, and wait for
a broker that hangs for at most 20."""

WAITS_SEEN_EVERY = 5.0
"""Seconds between two touches while the main loop waits for the database."""

NOT_FOLLOWED: int = getattr(os, "O_NOFOLLOW", 0)

logger = logging.getLogger(__name__)


class LivenessFile:
    """A file that is touched while the loops of this process turn. With an empty path nothing happens."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pid = os.getpid()
        self._touched_at = 0.0
        self._main = threading.main_thread().ident or 0
        self._others: dict[int, tuple[str, float]] = {}
        """The other loops: their threads, names, and when they last turned."""
        self._waiting: dict[int, float] = {}
        """The threads of loops that wait for the database, and since when."""
        self._has_failed = False

    def turned(self) -> None:
        """Touch the file, at most once a second and only while no other loop is stuck. It never raises."""
        now = time.monotonic()
        if not self._path or now - self._touched_at < EVERY or os.getpid() != self._pid:
            return
        if stuck := self._stuck(now):
            logger.error("The loop %s is stuck; %s is not touched", stuck, self._path)
            self._touched_at = now
            return
        self._touched_at = now
        try:
            touch(self._path)
        except OSError as error:
            if not self._has_failed:
                logger.error("The liveness file cannot be touched: %s", error)
            self._has_failed = True
        else:
            self._has_failed = False

    def other_turned(self, loop: str) -> None:
        """Record that a loop beside the main one has turned; from now on it must go on turning."""
        self._others[threading.get_ident()] = loop, time.monotonic()

    def other_ended(self) -> None:
        """Expect no more turns of this thread's loop."""
        self._others.pop(threading.get_ident(), None)

    def watches(self, thread: int) -> bool:
        """Return whether a loop turns in this thread."""
        return thread == self._main or thread in self._others

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark that the loop of this thread waits for the database inside the block."""
        thread = threading.get_ident()
        if not self.watches(thread) or thread in self._waiting:
            yield
            return
        self._waiting[thread] = time.monotonic()
        try:
            yield
        finally:
            del self._waiting[thread]

    def is_waiting(self) -> bool:
        """Return whether the main loop has been waiting for the database for a moment."""
        since = self._waiting.get(self._main)
        return since is not None and time.monotonic() - since >= EVERY

    def _stuck(self, now: float) -> str:
        for thread, (loop, at) in tuple(self._others.items()):
            if now - at > STUCK_AFTER and thread not in self._waiting:
                return loop
        return ""


_file = LivenessFile("")


def touch(path: str) -> None:
    """
    Set the time of a file to now; create it for its owner alone.

    Raises:
        OSError: if that is impossible, or if the path is a link, no regular file, or another user's.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | NOT_FOLLOWED, 0o600)
    try:
        known = os.fstat(descriptor)
        if not stat.S_ISREG(known.st_mode) or known.st_uid != os.geteuid():
            raise OSError(f"{path} is not a file of this process's user")
        os.utime(descriptor)
    finally:
        os.close(descriptor)


def reason_against(path: str) -> str:
    """Return why a path cannot be a liveness file; empty if it can."""
    folder = Path(path).parent
    if not Path(path).is_absolute():
        return "is not absolute"
    if not folder.is_dir():
        return f"is in a folder that does not exist: {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"is in a folder in which this process may not write: {folder}"
    return ""


def begin(**_: Any) -> None:
    """Touch the file, and from now on as the main loop turns. Called once by each program."""
    global _file
    _file = LivenessFile(settings.LIVENESS_FILE)
    if settings.LIVENESS_FILE:
        _file.turned()
        connection_created.connect(_watch_statements)
        threading.Thread(target=_touch_while_waiting, args=[_file], name="liveness", daemon=True).start()


def turned() -> None:
    """Report that the main loop has turned."""
    _file.turned()


def reporting(callback: Callable[[], None] | None = None) -> Callable[[], None]:
    """Return a callback that reports a turn, and then calls `callback`."""

    def report() -> None:
        turned()
        if callback:
            callback()

    return report


def other_turned(loop: str) -> None:
    """Report that a loop beside the main one has turned."""
    _file.other_turned(loop)


def other_ended() -> None:
    """Report that the loop of this thread has ended."""
    _file.other_ended()


def waiting() -> contextlib.AbstractContextManager[None]:
    """Mark that the loop of this thread waits for the database inside the block."""
    return _file.waiting()


def _watch_statements(connection: Any, **_: Any) -> None:
    """Mark the statements of the threads in which loops turn. A thread keeps its connection object."""
    if _file.watches(threading.get_ident()) and _run_marked not in connection.execute_wrappers:
        connection.execute_wrappers.append(_run_marked)


def _run_marked(execute: Callable[..., Any], *statement: Any) -> Any:
    with _file.waiting():
        return execute(*statement)


def _touch_while_waiting(file: LivenessFile) -> None:
    while True:
        time.sleep(WAITS_SEEN_EVERY)
        if file.is_waiting():
            file.turned()
