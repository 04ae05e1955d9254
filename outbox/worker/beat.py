"""
beat's scheduler: on a steady clock, without piles of ticks, and one that ends when it is told to.

Named in Celery's settings as `beat_scheduler`. It keeps its schedule in memory: there is no file to corrupt.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
import threading
import time
from typing import Any

from celery import beat, signals

from outbox.broker import inspection

MOST_WAITING = 100
"""Ticks that may wait in a queue before no more are sent there: nobody takes them. When somebody does again,
they are worked off in less than a second."""

COUNTED_EVERY = 10.0
"""Seconds between two questions to the broker how many wait."""

STOP_WITHIN = 5
"""Seconds after which a beat that was told to end, and still waits for its broker, ends at once. It holds
nothing that could be lost."""

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

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send a tick, unless so many wait that nobody seems to take them."""
        queue = entry.options.get("queue", "")
        if queue and self._count(queue) >= MOST_WAITING:
            logger.warning("%s: not sent, as %s ticks wait in the queue %s", entry.name, MOST_WAITING, queue)
        else:
            super().apply_entry(entry, producer=producer)

    def _count(self, queue: str) -> int:
        counted_at, waiting = self._waiting.get(queue, (-COUNTED_EVERY, 0))
        if time.monotonic() - counted_at >= COUNTED_EVERY:
            waiting = _ask(queue)
            self._waiting[queue] = time.monotonic(), waiting
        return waiting


def _ask(queue: str) -> int:
    """How many wait; none when the broker does not say, as sending the tick will then say why."""
    try:
        return inspection.waiting(queue)
    except Exception:
        logger.warning("the broker does not say how many ticks wait in the queue %s", queue, exc_info=True)
        return 0


_began_at, _began = dt.datetime.now(dt.UTC), time.monotonic()


def steady_now() -> dt.datetime:
    """The time, by a clock that nobody sets: one that goes back an hour would stop all ticks for an hour."""
    return _began_at + dt.timedelta(seconds=time.monotonic() - _began)


@signals.beat_init.connect
def end_surely(sender: Any, **_: Any) -> None:
    """
    Let beat, its `celery.beat.Service` being the sender, end when it is told to, whatever it waits for.

    Celery's handler saves the schedule first, and for that makes one if there is none yet: in a process that
    is told to end while it makes it, that fails. Then it raises `SystemExit` where the process is at that
    moment. redis-py makes another error of one that meets it waiting for an answer, and beat goes on.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ending(sender))


def _ending(service: Any) -> Any:
    def end(number: int, frame: Any) -> None:
        service._is_shutdown.set()  # the loop ends after this tick, should nothing else end it
        # No alarm: Python gives that signal's default back while it ends, which would kill an orderly end.
        last_resort = threading.Timer(STOP_WITHIN, os._exit, [0])
        last_resort.daemon = True
        last_resort.start()
        raise SystemExit  # there is no schedule to save: it is in memory

    return end
