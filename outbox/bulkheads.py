"""
Bounds the threads that one provider may hold, so that a slow or hanging provider does not stop the others.

A process whose tasks run in threads gives each provider a share of them (`OUTBOX_PROVIDER_SHARE`). A call
beyond it waits in its thread only as long as one usual call takes. If no call ends by then, its message is
postponed, which spends no attempt, until the provider can serve it. `resilience.breaker` guards all calls.

A process that calls a single provider, such as one that sends e-mails only, has nothing to protect: there the
provider may hold all threads.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Iterator
from typing import Any

from outbox import telemetry
from outbox.conf import settings
from outbox.resilience import NotNow

FEWEST_THREADS = 4
"""Pools with fewer threads are not divided."""

LONGEST_WAIT_IN_THREAD = 1.0
"""Seconds that a call waits in its thread at most. Calls of slower providers do not wait in threads."""

STUCK_AFTER = 3
"""A provider is stuck if its oldest call takes longer than this many usual calls. No thread waits for it."""

BETWEEN_TRIES = 0.005
"""Seconds between two tries to get a place."""

WEIGHT = 0.1
"""The weight of the last call in the usual duration of a provider's calls."""

FIRST_GUESS = 0.2
"""The usual duration, in seconds, before any call has ended."""

SHORTEST_WAIT, LONGEST_WAIT = dt.timedelta(seconds=1), dt.timedelta(minutes=1)
"""Limits of the time for which a message is postponed."""


class Crowded(NotNow):
    """The provider holds its share of the threads of this process."""


class _Process:
    """What the bulkheads of this process share."""

    threads = 0  # 0 in processes whose tasks do not run in threads
    bulkheads: dict[str, Bulkhead] = {}  # noqa: RUF012 - one per process
    guard = threading.Lock()


class Bulkhead:
    """
    The calls of one provider in this process.

    A thread that the pool has abandoned may end at any line, so its place is given back when it has ended, if
    it did not do that itself; and the lock is a plain one, whose `with` statement cannot be interrupted.
    """

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self._guard = threading.Lock()
        self._began: dict[threading.Thread, float] = {}
        self._waiting: set[threading.Thread] = set()
        self._usual = FIRST_GUESS
        self._served_until = 0.0

    @property
    def in_flight(self) -> int:
        """The number of calls that have begun and not ended."""
        return len(self._began)

    @contextlib.contextmanager
    def hold(self, *, most: int, in_line: int) -> Iterator[None]:
        """
        Hold one of `most` places during a call; at most `in_line` calls wait for one.

        Raises:
            Crowded: if no place becomes free soon.
        """
        me = threading.current_thread()
        if me in self._began:  # within another call of it
            yield
            return
        self._take(me, most, in_line)
        try:
            yield
        finally:
            with self._guard:
                took = time.monotonic() - self._began.pop(me)
                self._usual += WEIGHT * (took - self._usual)

    def _take(self, me: threading.Thread, most: int, in_line: int) -> None:
        until = None
        while True:
            with self._guard:
                if len(self._began) >= most:
                    self._forget_ended()
                if len(self._began) < most:
                    self._waiting.discard(me)
                    self._began[me] = time.monotonic()
                    return
                if until is None and self._may_wait(in_line):
                    self._waiting.add(me)
                    until = time.monotonic() + self._usual
                if until is None or time.monotonic() >= until:
                    self._waiting.discard(me)
                    wait = self._wait_for(most)
                    break
            time.sleep(BETWEEN_TRIES)
        seconds = round(wait.total_seconds(), 1)
        telemetry.emit("provider.crowded", provider=self.provider, in_flight=most, wait_seconds=seconds)
        raise Crowded(f"{self.provider} is slow: {most} calls of it are in progress", retry_after=wait)

    def _forget_ended(self) -> None:
        self._began = {thread: at for thread, at in self._began.items() if thread.is_alive()}
        self._waiting = {thread for thread in self._waiting if thread.is_alive()}

    def _may_wait(self, in_line: int) -> bool:
        is_slow = self._usual > LONGEST_WAIT_IN_THREAD or self._is_stuck()
        return len(self._waiting) < in_line and not is_slow

    def _is_stuck(self) -> bool:
        return self._oldest() > STUCK_AFTER * self._usual

    def _oldest(self) -> float:
        return time.monotonic() - min(self._began.values(), default=time.monotonic())

    def _wait_for(self, most: int) -> dt.timedelta:
        """When the provider can serve one more message: they come back at the rate at which calls end."""
        now = time.monotonic()
        seconds = max(self._usual, self._oldest() / 2) / most
        self._served_until = min(max(now, self._served_until) + seconds, now + LONGEST_WAIT.total_seconds())
        return max(dt.timedelta(seconds=self._served_until - now), SHORTEST_WAIT)


def of(provider: str) -> Bulkhead:
    """Return this process's bulkhead for a provider."""
    found = _Process.bulkheads.get(provider)
    if found is None:
        with _Process.guard:
            found = _Process.bulkheads.setdefault(provider, Bulkhead(provider))
    return found


def hold(provider: str) -> contextlib.AbstractContextManager[None]:
    """
    Hold a place among the calls of a provider, if this process divides its threads among providers.

    Raises:
        Crowded: if the provider holds its share of the threads.
    """
    if _Process.threads < FEWEST_THREADS:
        return contextlib.nullcontext()
    bulkhead = of(provider)
    if len(_Process.bulkheads) < 2 or settings.PROVIDER_SHARE >= 1:
        return bulkhead.hold(most=_Process.threads, in_line=_Process.threads)
    most = max(1, round(settings.PROVIDER_SHARE * _Process.threads))
    return bulkhead.hold(most=most, in_line=(_Process.threads - most) // 2)


def divide(threads: int) -> None:
    """Divide so many threads among the providers that this process calls. 0: do not divide."""
    _Process.threads = threads
    _Process.bulkheads = {}


def divide_pool(sender: Any, **_: Any) -> None:
    """Divide the threads of a worker that has started, if its tasks run in threads."""
    pool: Any = getattr(sender, "pool", None)
    is_threaded = type(pool).__module__.rpartition(".")[2] in ("thread", "threads")
    divide(int(pool.limit) if is_threaded else 0)
