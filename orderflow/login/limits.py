"""
Rate limits for passwords, per address and per user, counted before anything is hashed.

The counts are shared through Redis, like those of the API's limits. When Redis does not respond, each process
counts on its own, so that guessing stays limited and staff can still log in.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import threading
import unicodedata
from collections.abc import Iterator

from django.conf import settings
from django.core.signals import setting_changed
from django.http import HttpRequest
from django.utils.crypto import salted_hmac
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from orders.api import limits
from orders.api.addresses import client_address
from outbox import telemetry

MOST_AT_ONCE = 1
"""Logins of a process that may be hashing at once: fewer than its threads for pages, which are half of four."""

_NETWORK = 64
"""The bits of an IPv6 address that identify one customer of a network provider (RFC 6177)."""

_places = threading.BoundedSemaphore(MOST_AT_ONCE)


class TooManyLogins(Exception):
    """The password was not checked; `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many logins: try again in {retry_after:.0f} s")
        self.retry_after = retry_after


def count(request: HttpRequest | None, username: str) -> None:
    """
    Count one attempt, whether or not it will succeed.

    Raises:
        TooManyLogins: if the address or the user has had too many.
    """
    if request is not None and (address := client_address(request)):
        _count("address", settings.LOGIN_RATE_PER_ADDRESS, network_of(address))
    _count("user", settings.LOGIN_RATE_PER_USER, alias_of(username))


@contextlib.contextmanager
def place() -> Iterator[None]:
    """
    Hold one of the places for concurrent logins.

    Raises:
        TooManyLogins: if all are taken. Waiting would keep a thread from accepting orders.
    """
    if not _places.acquire(blocking=False):
        telemetry.emit("user.login_throttled", by="place")
        raise TooManyLogins(1)
    try:
        yield
    finally:
        _places.release()


def alias_of(username: str) -> str:
    """
    The pseudonym of a name in counts and logs. People type passwords into the wrong field, so names are not
    kept.
    """
    name = unicodedata.normalize("NFKC", username).strip().casefold().encode("utf-8", "replace")
    return salted_hmac("orderflow.login", name, algorithm="sha256").hexdigest()[:24]


def network_of(address: str) -> str:
    """The address, or the network from which its owner can choose addresses."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address  # a socket of this machine has none
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _NETWORK), strict=False))
    return str(found)


def _count(kind: str, rate: str, value: str) -> None:
    try:
        wait = limits.hit(rate, "login", kind, value)
    except limits.Unavailable:
        wait = limits.hit_with(_own(), rate, "login", kind, value)
    if wait:
        telemetry.emit("user.login_throttled", by=kind, client=value, seconds=round(wait))
        raise TooManyLogins(wait)


@functools.cache
def _own() -> SlidingWindowCounterRateLimiter:
    return SlidingWindowCounterRateLimiter(MemoryStorage())


def forget(**_: object) -> None:
    """Reset the counts of this process, because settings have changed."""
    _own.cache_clear()


setting_changed.connect(forget)
