"""
Providers that respond after a given time and record their calls, the same for all systems.

The guarded ones use the project's breakers, as its real adapters do; the naive system calls the plain ones, as
naive systems do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend

from benchmarks import environment, ledger
from orders import ports
from outbox.resilience import breaker


def answer(kind: str, key: str) -> None:
    """Wait for the response time, and record the call."""
    if environment.ANSWER_SECONDS:
        time.sleep(environment.ANSWER_SECONDS)
    ledger.note(kind, key)


class Gateway:
    """
    The part of `orders.ports.PaymentGateway` that the benchmark's orders need: all charges are approved.

    No response is ever lost and no order cancelled; a lookup or a refund would be an error, and fails.
    """

    def charge(
        self, *, amount_minor: int, currency: str, payment_method: str, order_id: str, idempotency_key: str
    ) -> ports.Charge:
        answer("charge", order_id)
        return ports.Charge(
            id=f"ch_{order_id}",
            amount_minor=amount_minor,
            currency=currency,
            state=ports.ChargeState.CAPTURED,
        )

    def refusal_of(self, amount_minor: int, currency: str) -> str:
        return ""


class GuardedGateway(Gateway):
    """The same behind the breaker, like `orders.adapters.stripe`."""

    def charge(self, **charge: Any) -> ports.Charge:
        with breaker("payments").guard():
            return super().charge(**charge)


class Warehouse:
    """The part of `orders.ports.Warehouse` that the benchmark's orders need: all are shipped."""

    def ship(
        self,
        *,
        order_id: str,
        order_number: str,
        country: str,
        lines: Sequence[tuple[str, int]],
        idempotency_key: str,
    ) -> ports.Parcel:
        answer("ship", order_id)
        return ports.Parcel(id=f"pa_{order_id}", carrier="Stub Parcel", tracking_number=order_number)


class GuardedWarehouse(Warehouse):
    """The same behind the breaker, like `orders.adapters.http_warehouse`."""

    def ship(self, **shipment: Any) -> ports.Parcel:
        with breaker("warehouse").guard():
            return super().ship(**shipment)


class MailBackend(BaseEmailBackend):
    """A mail server that accepts everything."""

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        for mail in email_messages:
            answer("mail", mail.extra_headers["X-Order-Number"])
        return len(email_messages)
