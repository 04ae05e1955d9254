"""How failures of an HTTP call to a provider are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from notifications.ports import OutcomeUnknown
from outbox.http import retry_after, sending
from outbox.resilience import Outage, SettingsRefused, Transient

TOO_MANY, UNAVAILABLE = 429, 503


NO_ADDRESS = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
)


def failure_of(provider: str, failure: requests.exceptions.RequestException, *, address: str) -> Transient:
    """
    An `Outage` if the provider was never reached, else `OutcomeUnknown`.

    `address` is the setting that says where it is.
    """
    if isinstance(failure, NO_ADDRESS):
        return SettingsRefused(f"{provider} has no address that can be asked", settings=address)
    if isinstance(failure, requests.exceptions.TooManyRedirects):
        return SettingsRefused(
            f"{provider}'s interface is not where we ask, it leads elsewhere", settings=address
        )
    if invalid := sending.invalid_certificate(failure):
        return Outage(f"{provider}'s certificate is not valid: {invalid}")
    if sending.was_never_sent(failure):
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
        asked = retry_after.read(headers)
        raise Outage(f"{provider} answered {status}{asked.remark}", retry_after=asked.wait)
    if status >= 500:
        raise OutcomeUnknown(f"{provider} answered {status}")
