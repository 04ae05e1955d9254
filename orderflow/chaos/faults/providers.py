"""Faults of the sandbox's providers: slow responses, lost responses, refused credentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import requests
from django.conf import settings

from orderflow.chaos.faults.schedule import Fault
from orderflow.chaos.own_stack import NotRunning, OwnStack

CONTROL_PATIENCE = 5.0
"""Seconds to wait for the control API."""

WRONG_CREDENTIALS = 401
"""The status of the response to a revoked key (RFC 9110, section 15.5.2)."""

ADDRESSES: dict[str, Callable[[], str]] = {
    "payments": lambda: settings.STRIPE_API_BASE,
    "warehouse": lambda: settings.WAREHOUSE_URL,
    "sms": lambda: settings.TWILIO_API_BASE,
    "push": lambda: settings.FCM_API_BASE,
}


class ProviderFault:
    """One fault that is set in the sandbox's control API until it is removed."""

    KINDS: ClassVar[dict[str, Callable[[Fault, int], dict[str, Any]]]] = {
        "provider-drop-after": lambda fault, seed: {
            "fault": "drop_after",
            "probability": fault.strength,
            "seed": seed,
        },
        "slow-provider": lambda fault, _: {"fault": "slow", "latency_ms": int(fault.strength * 1000)},
        "slow-channel": lambda fault, _: {"fault": "slow", "latency_ms": int(fault.strength * 1000)},
        "wrong-credentials": lambda *_: {"fault": "error", "status": WRONG_CREDENTIALS},
    }

    def __init__(self, fault: Fault, *, stack: OwnStack | None, seed: int) -> None:
        self._control = f"{address_of(fault.target, stack)}/_control"
        self._fault = self.KINDS[fault.kind](fault, seed)
        self._number = 0

    def begin(self) -> str:
        answer = requests.post(self._control, json=self._fault, timeout=CONTROL_PATIENCE, auth=password())
        answer.raise_for_status()
        self._number = answer.json()["id"]
        return f"{self._control}: {self._fault}"

    def end(self) -> str:
        response = requests.get(self._control, timeout=CONTROL_PATIENCE, auth=password())
        listed = response.json()["faults"]
        injected = sum(fault["struck"] for fault in listed if fault["id"] == self._number)
        address = f"{self._control}/{self._number}"
        requests.delete(address, timeout=CONTROL_PATIENCE, auth=password()).raise_for_status()
        return "" if injected else "no matching request came in that time"

    def has_recovered(self) -> bool:
        return True


def password() -> tuple[str, str]:
    """Return the user and the password of the sandbox's control API."""
    return "sandbox", settings.SANDBOX_PASSWORD


def address_of(target: str, stack: OwnStack | None) -> str:
    """
    Return the base URL of a provider.

    Raises:
        NotRunning: for the mail server, which only the drill's own stack has.
    """
    if target == "email":
        if stack is None:
            raise NotRunning("the sandbox's mail server belongs to the drill's own stack")
        return stack.mail_url
    return ADDRESSES[target]()
