"""How failures of an HTTP call to a provider are told apart."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import requests

from notifications.ports import OutcomeUnknown
from outbox.resilience import Outage, Transient

TOO_MANY, UNAVAILABLE = 429, 503


def failure_of(provider: str, failure: requests.exceptions.RequestException) -> Transient:
    """An `Outage` if the provider was never reached, else `OutcomeUnknown`."""
    reason = getattr(failure.args[0] if failure.args else None, "reason", None)
    unreached = type(reason).__name__ in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError")
    if isinstance(failure, requests.exceptions.ConnectTimeout) or unreached:
        return Outage(f"{provider} does not answer")
    return OutcomeUnknown(f"the connection to {provider} broke: {type(failure).__name__}")


def check_available(provider: str, status: int, headers: Mapping[str, Any] | None) -> None:
    """
    Check that the provider was able to decide.

    Raises:
        Outage: if it is busy or down, with its own wish for when to come back.
        OutcomeUnknown: if it failed in the middle.
    """
    if status in (TOO_MANY, UNAVAILABLE):
        seconds = str((headers or {}).get("Retry-After", ""))
        wait = dt.timedelta(seconds=int(seconds)) if seconds.isdigit() else None
        raise Outage(f"{provider} answered {status}", retry_after=wait)
    if status >= 500:
        raise OutcomeUnknown(f"{provider} answered {status}")
