"""
Decides whether a failed request was ever sent, for all adapters.

A provider that was never reached cannot have acted; in any other case the outcome is unknown. The errors of
HTTP libraries are recognised by their class names, so none of the libraries is needed here.
"""

from __future__ import annotations

import ssl

NEVER_SENT = frozenset({"ConnectTimeout", "ConnectTimeoutError", "NewConnectionError", "NameResolutionError"})
"""Errors of requests and urllib3 that occur before a connection is established."""


def was_never_sent(failure: BaseException | None) -> bool:
    """Return whether no connection was established, or only one to a server with an invalid certificate."""
    return any(
        kind.__name__ in NEVER_SENT for each in (failure, _reason(failure)) for kind in type(each).__mro__
    ) or bool(invalid_certificate(failure))


def invalid_certificate(failure: BaseException | None) -> str:
    """Return what is wrong with the server's certificate if that is why the request failed; otherwise empty."""
    for each in getattr(_reason(failure), "args", ()):
        if isinstance(each, ssl.SSLCertVerificationError):
            return each.verify_message or "no reason given"
    return ""


def _reason(failure: BaseException | None) -> BaseException | None:
    """The reason in an error of urllib3, which requests wraps."""
    reason = getattr(failure.args[0] if failure and failure.args else None, "reason", None)
    return reason if isinstance(reason, BaseException) else None
