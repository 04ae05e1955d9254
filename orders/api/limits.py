"""
How often a client may ask: a sliding window per client, and per address for those without a valid token.

The counts are shared through Redis. When it does not answer, everybody passes: an API that takes
orders is worth more than its limit. Logins of staff have the same counts and another rule, see
`orderflow.login.limits`.
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


class Unavailable(Exception):
    """The counts do not answer, or did not a moment ago."""


def wait_for_turn(*client: str) -> float:
    """Count one request of `client`; return 0 when it may pass, else the seconds it has to wait."""
    try:
        wait = hit(settings.API_RATE_LIMIT, *client)
    except Unavailable:
        return 0
    if wait:
        telemetry.emit("api.throttled", client=":".join(client))
    return wait


def hit(rate: str, *key: str) -> float:
    """
    Count one; return 0 if it is within `rate`, else the seconds to wait. Several rates are separated by `;`.

    Raises:
        Unavailable: if the counts do not answer.
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
    """The same with counts of one's own."""
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
    """Connect anew at the next request: settings have changed."""
    global _not_before
    _not_before = 0.0
    _limiter.cache_clear()


setting_changed.connect(forget)
