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
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

from outbox import telemetry
from outbox.conf import settings
from outbox.resilience import NotNow

FEWEST_THREADS = 4
"""Pools with fewer threads are not divided."""

LONGEST_WAIT_IN_THREAD = 0.5
"""Seconds that a call waits in its thread at most. Calls of slower providers do not wait in threads."""

STUCK_AFTER = 3
"""A provider is stuck if its oldest call takes longer than this many usual calls. No thread waits for it."""

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
    """The calls of one provider in this process."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self._changed = threading.Condition()
        self._began: dict[int, float] = {}
        self._numbers = itertools.count()
        self._waiting = 0
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
        number = self._take(most, in_line)
        try:
            yield
        finally:
            with self._changed:
                took = time.monotonic() - self._began.pop(number)
                self._usual += WEIGHT * (took - self._usual)
                self._changed.notify()

    def _take(self, most: int, in_line: int) -> int:
        with self._changed:
            if len(self._began) >= most and not self._wait_for_place(most, in_line):
                raise self._crowded(most)
            number = next(self._numbers)
            self._began[number] = time.monotonic()
            return number

    def _wait_for_place(self, most: int, in_line: int) -> bool:
        if self._waiting >= in_line or self._usual > LONGEST_WAIT_IN_THREAD or self._is_stuck():
            return False
        self._waiting += 1
        try:
            return self._changed.wait_for(lambda: len(self._began) < most, timeout=self._usual)
        finally:
            self._waiting -= 1

    def _is_stuck(self) -> bool:
        return self._oldest() > STUCK_AFTER * self._usual

    def _oldest(self) -> float:
        return time.monotonic() - min(self._began.values(), default=time.monotonic())

    def _crowded(self, most: int) -> Crowded:
        """The error of a call without a place, which tells its message when the provider can serve it."""
        now = time.monotonic()
        # Messages come back at the rate at which calls end, however many of them wait.
        seconds = max(self._usual, self._oldest() / 2) / most
        self._served_until = max(now, self._served_until) + seconds
        wait = min(max(dt.timedelta(seconds=self._served_until - now), SHORTEST_WAIT), LONGEST_WAIT)
        self._served_until = min(self._served_until, now + LONGEST_WAIT.total_seconds())
        telemetry.emit(
            "provider.crowded",
            provider=self.provider,
            in_flight=most,
            wait_seconds=round(wait.total_seconds(), 1),
        )
        return Crowded(f"{self.provider} is slow: {most} calls of it are in progress", retry_after=wait)


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
