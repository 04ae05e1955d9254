"""
`EMAIL_URL` as Django's settings. A scheme that stands for TLS enables it; an unknown scheme is refused.

| Scheme | TLS | Usual port |
|---|---|---|
| `smtp` | none, unless the query says `?tls=True` (STARTTLS) or `?ssl=True` (implicit) | 25 |
| `smtp+tls`, `submission` | STARTTLS | 587 |
| `smtp+ssl`, `smtps` | implicit (RFC 8314) | 465 |
"""

from __future__ import annotations

import urllib.parse
from typing import Any

import dj_email_url  # type: ignore[import-untyped]
from environs import EnvError

NONE: dict[str, Any] = {}
STARTTLS = {"EMAIL_USE_TLS": True, "EMAIL_USE_SSL": False}
IMPLICIT = {"EMAIL_USE_TLS": False, "EMAIL_USE_SSL": True}

SCHEMES = {
    "smtp": (NONE, 25),
    "smtp+tls": (STARTTLS, 587),
    "submission": (STARTTLS, 587),
    "smtp+ssl": (IMPLICIT, 465),
    "smtps": (IMPLICIT, 465),
}


def parse(url: str, **_: Any) -> dict[str, Any]:
    """
    Parse the URL.

    Raises:
        EnvError: if its scheme is not in `SCHEMES`, its query contradicts the TLS of its scheme, or its port is
        not
            a number. The message does not repeat the rest of the URL.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise EnvError(f"it must begin with one of {known}")
    tls, port = SCHEMES[scheme.lower()]
    try:
        found: dict[str, Any] = dj_email_url.parse(f"smtp://{rest}")
        has_port = urllib.parse.urlsplit(f"smtp://{rest}").port is not None
    except ValueError as malformed:
        raise EnvError("it has no valid host and port") from malformed
    asked = {name: found[name] for name in STARTTLS}
    if tls and any(asked.values()) and asked != tls:
        raise EnvError(f"it begins with {scheme}:// and its query requests another TLS mode")
    return found | tls | ({} if has_port else {"EMAIL_PORT": port})
