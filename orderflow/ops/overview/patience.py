"""
Questions to servers that may hang, so that the page does not hang with them.

A thread asks, never two at a time for one question. The page waits for the answer for a moment; then it shows
the last answer, or that there is none. Answers are kept for a few seconds, however many people look. The thread
ends when the server answers or the client's timeout is over, so the client needs one.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")

FRESH = 4.0
"""Seconds for which an answer is shown before the question is asked again."""

WAIT = 0.5
"""How many seconds a page waits for an answer, if there is no recent one."""

STALE = 15.0
"""An answer that is older, in seconds, is not shown any more."""


@dataclasses.dataclass(frozen=True)
class Known(Generic[Answer]):
    """An answer, or the error in its place, and for how many seconds it has been known."""

    answer: Answer | None
    error: Exception | None
    age: float


class Question(Generic[Answer]):
    """One question; `ask` may block and may raise."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._running: threading.Event | None = None
        self._asked_at = 0.0
        self._last: Known[Answer] | None = None
        self._answered_at = 0.0

    def begin(self) -> None:
        """Ask the question, unless the answer is recent or somebody has asked already. It does not wait."""
        with self._lock:
            self._begin()

    def read(self, *, wait: float | None = None) -> Known[Answer] | None:
        """
        Return the newest answer or error, after at most `wait` seconds; None if there is none that is recent.
        """
        with self._lock:
            running = self._begin()
            if running is None:
                return self._known()
        running.wait(max(0.0, (WAIT if wait is None else wait) - self._waited()))
        with self._lock:
            return self._known()

    def _begin(self) -> threading.Event | None:
        """Return the event that ends the wait; None if the answer is recent. The lock is held."""
        if self._running is None:
            if self._last and time.monotonic() - self._answered_at < FRESH:
                return None
            self._running, self._asked_at = threading.Event(), time.monotonic()
            threading.Thread(target=self._answer, args=[self._running], name="overview", daemon=True).start()
        return self._running

    @property
    def pending_seconds(self) -> float | None:
        """For how many seconds the server has not answered; None if it does not have to."""
        with self._lock:
            return self._waited() if self._running else None

    def _waited(self) -> float:
        """For how long the question has been asked: who comes later does not wait as long again."""
        return time.monotonic() - self._asked_at

    def _known(self) -> Known[Answer] | None:
        age = time.monotonic() - self._answered_at
        return dataclasses.replace(self._last, age=age) if self._last and age <= STALE else None

    def _answer(self, done: threading.Event) -> None:
        try:
            found = Known(self._ask(), None, 0.0)
        except Exception as error:  # whatever a broken server makes a client raise is the answer
            found = Known(None, error, 0.0)
        with self._lock:
            self._last, self._answered_at, self._running = found, time.monotonic(), None
        done.set()
