"""How long the queue of steps was: what waits behind others waits for capacity, not for recovery."""

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
LOOK_EVERY = 1.0
"""Seconds between two looks."""

LONG = 60
"""Waiting steps from which a queue counts as long: the workers of a drill need a second or two for them."""

Sample = tuple[float, int]
"""When (Unix time), and how many steps waited."""


class Watch:
    """Looks at the queue until it is told to stop."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="backlog", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            try:
                self.samples.append((time.time(), inspection.waiting(QUEUE)))
            except (BrokerError, AMQPError, RedisError, OSError):
                continue  # the broker is one of the things that are broken here


def worked_off(samples: Sequence[Sample], moves: Sequence[float]) -> list[tuple[float, float]]:
    """
    Return the spans in which a long queue was being worked off.

    A queue that is long while nothing moves explains nothing: there, workers are missing. `moves` are the
    moments at which any order moved, ascending.
    """
    return list(_busy(samples, moves))


def _busy(samples: Sequence[Sample], moves: Sequence[float]) -> Iterator[tuple[float, float]]:
    position = 0
    for (begin, waiting), (end, _) in itertools.pairwise(samples):
        while position < len(moves) and moves[position] < begin:
            position += 1
        if waiting >= LONG and position < len(moves) and moves[position] < end <= begin + 3 * LOOK_EVERY:
            yield begin, end
