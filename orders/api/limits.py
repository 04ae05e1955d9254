"""
How often a client may ask: a sliding window per token, and per address for those without a valid one.

The counts are shared through Redis. When it does not answer, everybody passes: an API that takes
orders is worth more than its limit.
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
"""Seconds a request may wait for the counts."""

PAUSE = 5.0
"""Seconds for which counts that did not answer are not asked again, so that requests do not all wait."""

_not_before = 0.0


def wait_for_turn(*client: str) -> float:
    """Count one request of `client`; return 0 when it may pass, else the seconds it has to wait."""
    global _not_before
    if time.monotonic() < _not_before:
        return 0
    try:
        limiter, rate = _limiter(), limits.parse(settings.API_RATE_LIMIT)
        if limiter.hit(rate, *client):
            return 0
        reset_at = float(limiter.get_window_stats(rate, *client).reset_time)
    except (RedisError, OSError) as error:
        _not_before = time.monotonic() + PAUSE
        telemetry.emit("api.limits_unavailable", error=str(error))
        return 0
    telemetry.emit("api.throttled", client=":".join(client))
    return max(1.0, reset_at - time.time())


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
    """Connect anew at the next request: settings have changed."""
    global _not_before
    _not_before = 0.0
    _limiter.cache_clear()


setting_changed.connect(forget)
