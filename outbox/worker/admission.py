"""
How many tasks of a pool of threads work at once: as many as there are database sessions for.

Threads that wait for providers need no session, and a pool has many for them. Where calls return at once, all
of them would work instead: they wait for the few sessions and for the interpreter, each order takes as long as
all of them together, and chains that take too long leave the process (see `inline`). So a task begins when a
session is free for it. Tasks in the middle of a call do not count, because they have given theirs back.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Any

from outbox.worker import sessions

BEGINS_WITHIN = 0.01
"""Seconds in which a task that has begun takes its first session. Until then it counts as having one."""

LONGEST_WAIT = 4.0
"""Seconds after which a task begins in any case: no session becomes free while the database is down, and Redis
gives a message to another worker that is held for longer than the visibility timeout."""

LOOKED_AT_EVERY = 0.02
"""Seconds until `again` is called if a task has to wait: other tasks may have begun a call by then."""


class Admission:
    """Decides when the next task of a pool may begin, once it is bound to the main loop."""

    def __init__(self, again: Callable[[], None]) -> None:
        self._again = again
        self._begun: collections.deque[float] = collections.deque()
        self._hub: Any = None
        self._is_planned = False

    def bind(self, hub: Any) -> None:
        """Let tasks wait from now on, and look again in this loop. The timers of an earlier one have ended."""
        self._hub, self._is_planned = hub, False

    def release(self) -> None:
        """Let no task wait any more."""
        self._hub = None

    def admits(self, waiting_since: float) -> bool:
        """Return whether a task may begin that has been waiting since then, on the monotonic clock."""
        free = None if self._hub is None else sessions.free()
        if free is None:
            return True
        now = time.monotonic()
        while self._begun and self._begun[0] <= now - BEGINS_WITHIN:
            self._begun.popleft()
        if free <= len(self._begun) and now < waiting_since + LONGEST_WAIT:
            self._plan()
            return False
        self._begun.append(now)
        return True

    def _plan(self) -> None:
        if not self._is_planned:
            self._is_planned = True
            self._hub.call_later(LOOKED_AT_EVERY, self._look)

    def _look(self) -> None:
        self._is_planned = False
        self._again()
