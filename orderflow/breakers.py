"""
Circuit breakers whose state all workers share through Redis, behind `outbox.resilience.Breaker`.

Breakers are made per process: one that was made before a fork has lost the thread that writes the
shared state. With Redis away a breaker goes on with what its own process sees.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Iterator

import redis
from django.conf import settings
from interlock import CircuitBreaker, CircuitOpenError, Config, State
from interlock.integrations.redis import RedisStorage

from outbox.resilience import NotNow, Outage, Transient

CONFIG = Config(
    # Three failed calls in a row open it: as many as one message's quick tries, so that a message that
    # meets a dead provider alone is waiting for the breaker before it has spent its attempts.
    minimum_number_of_calls=3,
    failure_rate_threshold=0.6,
    window_size=10,
    slow_call_duration_threshold=4.0,
    slow_call_rate_threshold=1.0,
    wait_duration_in_open=15.0,
    permitted_calls_in_half_open=2,
)

_made: dict[tuple[int, str], SharedBreaker] = {}


def shared_breaker(name: str) -> SharedBreaker:
    """This process's breaker for the provider `name`."""
    key = (os.getpid(), name)
    if key not in _made:
        _made[key] = SharedBreaker(name)
    return _made[key]


class _CountsTransient:
    """Only technical failures count: a declined card is an answer, and so is "not now" about one order."""

    def is_failure(self, *, result: object, exception: Exception | None) -> bool:
        if isinstance(exception, NotNow):
            return isinstance(exception, Outage)
        return isinstance(exception, Transient)


class SharedBreaker:
    """A breaker of interlock-cb that speaks the project's errors."""

    def __init__(self, name: str, *, config: Config = CONFIG, url: str | None = None) -> None:
        url = settings.REDIS_URL if url is None else url
        storage = (
            RedisStorage(
                redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1),
                key_prefix="breaker:",
                poll_interval=1.0,
            )
            if url
            else None
        )
        self._breaker = CircuitBreaker(name=name, config=config, classifier=_CountsTransient(), storage=storage)
        self._open_for = dt.timedelta(seconds=config.wait_duration_in_open)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """See `outbox.resilience.Breaker.guard`."""
        try:
            with self._breaker:
                yield
        except CircuitOpenError as refused:
            wait = dt.timedelta(seconds=refused.retry_after or 0) or self._open_for
            raise Outage(f"{self._breaker.name} is not answering", retry_after=wait) from refused
        except NotNow:
            raise
        except Transient as failure:
            if self._breaker.state in (State.OPEN, State.HALF_OPEN):
                raise Outage(
                    f"{self._breaker.name} is not answering: {failure}",
                    retry_after=failure.retry_after or self._open_for,
                ) from failure
            raise

    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        return self._breaker.state.name.lower().replace("_", "-")
