"""
The providers that refuse our credentials or other settings, shared by all processes through Redis.

While a provider refuses them its breaker is open, and probes are refused again: a record that is not renewed is
outdated. Without Redis each process only knows its own calls.
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
"""Seconds after which a refusal that was not repeated expires: four probes of an open breaker."""

_seen: dict[str, tuple[float, str]] = {}


def note_refused(provider: str, because: str) -> None:
    """Record that the provider has just refused our credentials, or another setting."""
    _seen[provider] = (time.monotonic(), because)
    if settings.REDIS_URL:
        with contextlib.suppress(redis.RedisError):  # this process knows; the others find out on their own
            _shared(settings.REDIS_URL).set(_key(provider), because, ex=VALID_FOR)


def refusal_of(provider: str) -> str:
    """Return why the provider refuses our settings; empty if it does not."""
    return refused([provider]).get(provider, "")


def refused(providers: Sequence[str] = known.NAMES) -> dict[str, str]:
    """Return the providers that currently refuse our credentials or settings, and what to correct."""
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
    """Delete the record, because the provider has just accepted a call."""
    _seen.pop(provider, None)
    if settings.REDIS_URL:
        with contextlib.suppress(redis.RedisError):
            _shared(settings.REDIS_URL).delete(_key(provider))


def _key(provider: str) -> str:
    return f"breaker:credentials:{provider}"


@functools.cache
def _shared(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
