"""
beat's scheduler: it uses a monotonic clock, limits the number of waiting ticks, and ends when it is signalled.

Set it as `beat_scheduler` in Celery's settings. The schedule is kept in memory, so there is no file to corrupt.
"""

from __future__ import annotations

import datetime as dt
import functools
import logging
import os
import signal
import threading
import time
from typing import Any

from celery import beat, signals
from celery.apps import beat as program

from outbox.broker import inspection
from outbox.worker import liveness

MOST_WAITING = 100
"""Ticks that may wait in a queue before no more are sent to it, because no worker takes them. Once a worker
does, they are processed in less than a second."""

COUNTED_EVERY = 10.0
"""Seconds between two queries for the number of waiting ticks."""

LONGEST_SLEEP = 10.0
"""Seconds between two ticks at most, so that a file shows that beat ticks (see `liveness`)."""

STOP_WITHIN = 5
"""Seconds after a signal until a beat that still waits for its broker ends at once. It holds nothing that could
be lost."""

logger = logging.getLogger(__name__)


class Scheduler(beat.Scheduler):
    """Celery's scheduler in memory; see the module."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._waiting: dict[str, tuple[float, int]] = {}
        super().__init__(*args, **options)

    def setup_schedule(self) -> None:
        super().setup_schedule()
        entries: Any = self.schedule
        for entry in entries.values():
            entry.schedule.nowfun = steady_now

    def close(self) -> None:
        super().close()
        from outbox.worker import heartbeats  # it needs the models, which are not loaded with this module

        heartbeats.end_of_beat()

    def tick(self, *args: Any, **options: Any) -> float:
        """Send what is due; return the seconds until the next tick."""
        liveness.turned()
        return min(super().tick(*args, **options), LONGEST_SLEEP)

    def _ensure_connected(self) -> Any:
        """Connect in the end, and show meanwhile that beat is not stuck."""
        connection: Any = self.connection
        connect = connection.ensure_connection
        connection.ensure_connection = functools.partial(connect, callback=liveness.reporting())
        try:
            return super()._ensure_connected()  # type: ignore[misc]
        finally:
            connection.ensure_connection = connect

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send a tick, unless too many wait in its queue."""
        queue = entry.options.get("queue", "")
        if queue and self._count(queue) >= MOST_WAITING:
            logger.warning("%s: not sent, as %s ticks wait in the queue %s", entry.name, MOST_WAITING, queue)
        else:
            super().apply_entry(entry, producer=producer)

    def _count(self, queue: str) -> int:
        counted_at, waiting = self._waiting.get(queue, (-COUNTED_EVERY, 0))
        if time.monotonic() - counted_at >= COUNTED_EVERY:
            waiting = _waiting(queue)
            self._waiting[queue] = time.monotonic(), waiting
        return waiting


def _waiting(queue: str) -> int:
    """The number of waiting messages; 0 if the broker does not answer: sending the tick then fails as well."""
    try:
        return inspection.waiting(queue)
    except Exception:
        logger.warning("Could not query how many ticks wait in the queue %s", queue, exc_info=True)
        return 0


class Program(program.Beat):
    """`celery beat`, which ends at any moment, also while its scheduler is made."""

    def install_sync_handler(self, service: Any) -> None:
        end_surely(service)


_began_at, _began = dt.datetime.now(dt.UTC), time.monotonic()


def steady_now() -> dt.datetime:
    """Return the time by the monotonic clock. A clock set back by an hour would stop all ticks for an hour."""
    return _began_at + dt.timedelta(seconds=time.monotonic() - _began)


signals.beat_init.connect(liveness.begin)


@signals.beat_init.connect
def end_surely(sender: Any, **_: Any) -> None:
    """
    Make beat end on a signal, whatever it waits for. The sender is its `celery.beat.Service`.

    Celery's handler saves the schedule first, and creates it if there is none yet, which fails if the signal
    arrives during its creation. Then it raises `SystemExit`. While redis-py waits for a response, it turns that
    into another error, and beat continues.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ending(sender))


def _ending(service: Any) -> Any:
    def end(number: int, frame: Any) -> None:
        service._is_shutdown.set()  # ends the loop after this tick, if nothing else does
        # Not SIGALRM: Python restores its default action during shutdown, which would kill an orderly end.
        last_resort = threading.Timer(STOP_WITHIN, os._exit, [0])
        last_resort.daemon = True
        last_resort.start()
        raise SystemExit  # the schedule is in memory and needs no saving

    return end
