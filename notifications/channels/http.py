"""Classifies the failures of HTTP calls to providers."""

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
    Return an `Outage` if the provider was never reached, else `OutcomeUnknown`.

    `address` is the name of the setting with its address.
    """
    if isinstance(failure, NO_ADDRESS):
        return SettingsRefused(f"the address of {provider} is invalid", settings=address)
    if isinstance(failure, requests.exceptions.TooManyRedirects):
        return SettingsRefused(f"{provider} redirects to another address", settings=address)
    if invalid := sending.invalid_certificate(failure):
        return Outage(f"{provider}'s certificate is not valid: {invalid}")
    if sending.was_never_sent(failure):
        return Outage(f"{provider} does not answer")
    return OutcomeUnknown(f"the connection to {provider} broke: {type(failure).__name__}")


def check_available(provider: str, status: int, headers: Mapping[str, Any] | None) -> None:
    """
    Check that the provider was able to decide.

    Raises:
        Outage: if it is busy or down, with the wait that it requests.
        OutcomeUnknown: if it failed while processing the request.
    """
    if status in (TOO_MANY, UNAVAILABLE):
        requested = retry_after.read(headers)
        raise Outage(f"{provider} answered {status}{requested.remark}", retry_after=requested.wait)
    if status >= 500:
        raise OutcomeUnknown(f"{provider} answered {status}")
