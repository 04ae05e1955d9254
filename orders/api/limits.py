"""
Rate limits: a sliding window per client, and per address for requests without a valid token.

The counts are shared through Redis. When it does not respond, all requests pass: accepting orders is worth more
than the limit. Logins of staff use the same counts with another rule, see `orderflow.login.limits`.
"""

from __future__ import annotations

import functools
import time

import limits
from django.conf import settings
from django.core.signals import setting_changed
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from outbox import telemetry

TIMEOUT = 0.25
"""Seconds a request may wait for Redis."""

PAUSE = 5.0
"""Seconds in which Redis is not queried after it did not respond, so that not every request waits."""

_not_before = 0.0


class Unavailable(Exception):
    """Redis does not respond, or did not a moment ago."""


def wait_for_turn(*client: str) -> float:
    """Count one request of `client`; return 0 if it may pass, otherwise the seconds it has to wait."""
    try:
        wait = hit(settings.API_RATE_LIMIT, *client)
    except Unavailable:
        return 0
    if wait:
        telemetry.emit("api.throttled", client=":".join(client))
    return wait


def hit(rate: str, *key: str) -> float:
    """
    Count one; return 0 if it is within `rate`, otherwise the seconds to wait. Several rates are separated by
    `;`.

    Raises:
        Unavailable: if Redis does not respond.
    """
    global _not_before
    if time.monotonic() < _not_before:
        raise Unavailable
    try:
        return hit_with(_limiter(), rate, *key)
    except (RedisError, OSError) as error:
        _not_before = time.monotonic() + PAUSE
        telemetry.emit("api.limits_unavailable", error=str(error))
        raise Unavailable from error


def hit_with(limiter: SlidingWindowCounterRateLimiter, rate: str, *key: str) -> float:
    """The same with another limiter."""
    for item in limits.parse_many(rate):
        if not limiter.hit(item, *key):
            return max(1.0, float(limiter.get_window_stats(item, *key).reset_time) - time.time())
    return 0


@functools.cache
def _limiter() -> SlidingWindowCounterRateLimiter:
    if not settings.REDIS_URL:
        return SlidingWindowCounterRateLimiter(MemoryStorage())
    storage = RedisStorage(
        settings.REDIS_URL,
        key_prefix="api-limits",
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )
    return SlidingWindowCounterRateLimiter(storage)


def forget(**_: object) -> None:
    """Connect again at the next request, because settings have changed."""
    global _not_before
    _not_before = 0.0
    _limiter.cache_clear()


setting_changed.connect(forget)
