"""
How often a password may be tried: from one address, and for one user; counted before anything is hashed.

The counts are those of the API's limits, shared through Redis. When it does not answer, each process counts
for itself, so that guessing stays limited and staff can still log in.
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
"""Logins of a process that may be hashing: fewer than its threads for pages, which are half of four."""

_NETWORK = 64
"""Bits of an IPv6 address that one customer of a provider has for themselves (RFC 6177)."""

_places = threading.BoundedSemaphore(MOST_AT_ONCE)


class TooManyLogins(Exception):
    """A password was not looked at; `retry_after` is in how many seconds it will be."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many logins: try again in {retry_after:.0f} s")
        self.retry_after = retry_after


def count(request: HttpRequest | None, username: str) -> None:
    """
    Count one try, whether it will succeed or not.

    Raises:
        TooManyLogins: if the address or the user has had too many.
    """
    if request is not None and (address := client_address(request)):
        _count("address", settings.LOGIN_RATE_PER_ADDRESS, network_of(address))
    _count("user", settings.LOGIN_RATE_PER_USER, alias_of(username))


@contextlib.contextmanager
def place() -> Iterator[None]:
    """
    One of the places for logins at work.

    Raises:
        TooManyLogins: if all are taken. Waiting would keep a thread from taking orders.
    """
    if not _places.acquire(blocking=False):
        telemetry.emit("user.login_throttled", by="place")
        raise TooManyLogins(1)
    try:
        yield
    finally:
        _places.release()


def alias_of(username: str) -> str:
    """What a name is counted and logged by. People type passwords into the wrong field, so it is never kept."""
    name = unicodedata.normalize("NFKC", username).strip().casefold().encode("utf-8", "replace")
    return salted_hmac("orderflow.login", name, algorithm="sha256").hexdigest()[:24]


def network_of(address: str) -> str:
    """The address, or the network that its owner can choose addresses from."""
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
    """Begin to count anew in this process: settings have changed."""
    _own.cache_clear()


setting_changed.connect(forget)
