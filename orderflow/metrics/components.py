"""
Reading all components within a bounded time, whatever is down.

Each component is read in a thread of its own. One that does not answer in time is down, and what it would say
is unknown, not zero. It is not asked again before the thread that waits for it has ended, so a server that
hangs costs one thread and one connection.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from django.conf import settings
from django.db import connection

from orderflow.metrics import broker, rows, shared
from orderflow.metrics.descriptions import BROKER, DATABASE, REDIS, Readings, Value

ANSWER_WITHIN = 5.0
"""Seconds. The longest a scrape takes; Prometheus waits for 10 by default."""

CACHED_FOR = 5.0
"""Seconds for which readings are given to further scrapes."""

logger = logging.getLogger(__name__)


class Component:
    """One component, and the thread that reads it."""

    def __init__(self, name: str, read: Callable[[], Readings]) -> None:
        self.name, self._read = name, read
        self._thread: threading.Thread | None = None
        self._readings: Readings | None = None
        self._was_up = True

    def begin(self) -> None:
        """Begin to read, unless the last time has not ended."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._readings = None
        self._thread = threading.Thread(target=self._run, name=f"metrics of {self.name}", daemon=True)
        self._thread.start()

    def end(self, *, until: float) -> Readings | None:
        """Return what was read; None if that failed or took too long."""
        assert self._thread is not None
        self._thread.join(max(0.0, until - time.monotonic()))
        found = None if self._thread.is_alive() else self._readings
        if found is None and self._was_up:
            logger.warning("the component %s does not answer: its metrics are absent", self.name)
        self._was_up = found is not None
        return found

    def _run(self) -> None:
        try:
            self._readings = self._read()
        except Exception as error:
            logger.info("reading the metrics of %s failed: %r", self.name, error)
        finally:
            connection.close()


class Components:
    """All components; one scrape reads them, and others that arrive meanwhile wait for its result."""

    def __init__(self, *components: Component, answer_within: float = ANSWER_WITHIN) -> None:
        self._components, self._answer_within = components, answer_within
        self._lock = threading.Lock()
        self._readings: Readings = {}
        self._read_at: float | None = None

    def read(self) -> Readings:
        """Return all readings, `CACHED_FOR` seconds old at most. Never raises."""
        with self._lock:
            if self._read_at is None or time.monotonic() - self._read_at >= CACHED_FOR:
                self._readings = self._fresh()
                self._read_at = time.monotonic()
            return self._readings

    def _fresh(self) -> Readings:
        until = time.monotonic() + self._answer_within
        for component in self._components:
            component.begin()
        found = {component.name: component.end(until=until) for component in self._components}
        readings: Readings = {
            "orderflow_up": [Value(float(one is not None), (name,)) for name, one in found.items()],
            "orderflow_build_info": [Value(1.0, (settings.RELEASE or "unknown",))],
        }
        for one in found.values():
            readings |= one or {}
        return readings


def is_up(readings: Readings, component: str) -> bool:
    """Return whether the component answered."""
    return any(value.value == 1 for value in readings["orderflow_up"] if value.labels == (component,))


def all_components() -> Components:
    """Return the components of this installation. Without Redis, each process keeps what would be in it."""
    parts = [Component(DATABASE, rows.read), Component(BROKER, broker.read)]
    if settings.REDIS_URL:
        parts.append(Component(REDIS, shared.read))
    return Components(*parts)
