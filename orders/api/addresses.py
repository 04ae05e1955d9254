"""Where a request comes from, as far as that can be known."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """
    The address of the client, as the outermost of `TRUSTED_PROXIES` saw it.

    Every proxy appends whom it was asked by to `X-Forwarded-For`; what stands further to the left came
    from the client, who may write anything there. Without trusted proxies, and when the header does
    not name an address at that place, it is the other end of the connection.
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
