"""The address of the client, as far as it can be known."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """
    Return the client's address as seen by the outermost of `TRUSTED_PROXIES`.

    Every proxy appends the address of its client to `X-Forwarded-For`; entries further to the left come from
    the client, which can send anything. Without trusted proxies, and if the header has no valid address at that
    place, the result is the address of the connection.
    """
    connected: str = request.META.get("REMOTE_ADDR", "")
    proxies = settings.TRUSTED_PROXIES
    seen = request.headers.get("X-Forwarded-For", "").split(",")
    if not proxies or len(seen) < proxies:
        return connected
    try:
        return str(ipaddress.ip_address(_without_port(seen[-proxies].strip())))
    except ValueError:
        return connected


def _without_port(seen: str) -> str:
    """Some proxies add the port: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if seen.startswith("["):
        return seen[1:].partition("]")[0]
    return seen.partition(":")[0] if seen.count(":") == 1 else seen
