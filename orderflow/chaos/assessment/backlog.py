"""The length of the queue of steps: time spent behind other work depends on capacity, not on recovery."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence

from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from outbox.broker import inspection

QUEUE = "orders"
SAMPLE_INTERVAL = 1.0
"""Seconds between two samples."""

LONG = 60
"""
A queue with at least this many waiting steps counts as long: a drill's workers need a second or two for them.
"""

Sample = tuple[float, int]
"""The time (Unix), and the number of waiting steps."""


class Watch:
    """Samples the queue length until it is stopped."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="backlog", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_INTERVAL):
            try:
                self.samples.append((time.time(), inspection.waiting(QUEUE)))
            except (BrokerError, AMQPError, RedisError, OSError):
                continue  # the broker may be down: it is a target of faults


def worked_off(samples: Sequence[Sample], moves: Sequence[float]) -> list[tuple[float, float]]:
    """
    Return the intervals in which workers were processing a long queue.

    A long queue without any progress is no excuse: workers are missing then. `moves` are the times at which any
    order moved, ascending.
    """
    return list(_busy(samples, moves))


def _busy(samples: Sequence[Sample], moves: Sequence[float]) -> Iterator[tuple[float, float]]:
    position = 0
    for (begin, waiting), (end, _) in itertools.pairwise(samples):
        while position < len(moves) and moves[position] < begin:
            position += 1
        if waiting >= LONG and position < len(moves) and moves[position] < end <= begin + 3 * SAMPLE_INTERVAL:
            yield begin, end
