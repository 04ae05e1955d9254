"""
Which providers do not take our credentials or other settings, as all processes tell each other through Redis.

While a provider refuses them its breaker is open, and probes are refused again: a note that is not renewed is
out of date. Without Redis each process knows what it has seen itself.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Sequence

import redis
from django.conf import settings

from orderflow import providers as known

VALID_FOR = 60
"""Seconds after which a refusal that was not seen again is forgotten: four probes of an open breaker."""

_seen: dict[str, tuple[float, str]] = {}


def note_refused(provider: str, because: str) -> None:
    """Note that the provider has refused our credentials, or another setting, just now."""
    _seen[provider] = (time.monotonic(), because)
    if settings.REDIS_URL:
        with contextlib.suppress(redis.RedisError):  # this process knows; the others find out for themselves
            _shared(settings.REDIS_URL).set(_key(provider), because, ex=VALID_FOR)


def refusal_of(provider: str) -> str:
    """Why the provider does nothing for us, if it is because of our settings; otherwise empty."""
    return refused([provider]).get(provider, "")


def refused(providers: Sequence[str] = known.NAMES) -> dict[str, str]:
    """The providers that refuse our credentials or other settings now, and what to correct."""
    found = _read(providers)
    return {provider: because for provider, because in zip(providers, found, strict=True) if because}


def _read(providers: Sequence[str]) -> list[str]:
    if settings.REDIS_URL:
        with contextlib.suppress(redis.RedisError):
            found = _shared(settings.REDIS_URL).mget([_key(provider) for provider in providers])
            return [because.decode() if isinstance(because, bytes) else because or "" for because in found]
    oldest = time.monotonic() - VALID_FOR
    seen = [_seen.get(provider, (oldest, "")) for provider in providers]
    return [because if at > oldest else "" for at, because in seen]


def forget_refusal(provider: str) -> None:
    """Forget it: the provider has just worked for us."""
    _seen.pop(provider, None)
    if settings.REDIS_URL:
        with contextlib.suppress(redis.RedisError):
            _shared(settings.REDIS_URL).delete(_key(provider))


def _key(provider: str) -> str:
    return f"breaker:credentials:{provider}"


@functools.cache
def _shared(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
