"""
Payments through Stripe's official SDK.

A charge carries its key as the request's idempotency key and as metadata, so that it can be found
again after the provider has forgotten the key. Searching follows Stripe's writes within a minute; until
then asking again under the same key is what Stripe recommends, and that is what the step does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import requests
import stripe
from django.conf import settings

from orders.ports import (
    CallInFlight,
    Charge,
    ListedCharge,
    ListedRefund,
    OutcomeUnknown,
    PaymentDeclined,
    RefundReceipt,
)
from outbox.resilience import Outage, Permanent, Transient, breaker

PAGE = 100
"""Records in one page of a list; Stripe gives no more."""

UNDONE_REFUNDS = ("failed", "canceled")
"""Refunds that gave nothing back."""


class PaymentRequestRefused(Permanent):
    """Stripe refuses the request itself: a wrong key, an unknown card token, an impossible amount."""


class StripeGateway:
    """`orders.ports.PaymentGateway` on Stripe's PaymentIntents."""

    def __init__(self) -> None:
        timeout = settings.PROVIDER_TIMEOUT.total_seconds()
        addresses = {"base_addresses": {"api": settings.STRIPE_API_BASE}} if settings.STRIPE_API_BASE else {}
        self._client = stripe.StripeClient(
            settings.STRIPE_API_KEY,
            max_network_retries=0,  # our policy retries, and it knows an unknown outcome when it sees one
            http_client=stripe.RequestsClient(timeout=(min(2.0, timeout), timeout)),
            **addresses,  # type: ignore[arg-type]
        )

    def charge(
        self, *, amount_minor: int, currency: str, payment_method: str, order_id: str, idempotency_key: str
    ) -> Charge:
        """See `orders.ports.PaymentGateway.charge`."""
        # Typed as Any: Stripe requires this list with `confirm`, and its own types do not know it.
        parameters: Any = {
            "amount": amount_minor,
            "currency": currency.lower(),
            "payment_method": payment_method,
            "payment_method_types": ["card"],
            "confirm": True,
            "metadata": {"order_id": order_id, "key": idempotency_key},
        }
        with _calling(acts=True):
            intent = self._client.v1.payment_intents.create(parameters, {"idempotency_key": idempotency_key})
        charge = _charge(intent)
        if not charge.succeeded:
            raise PaymentDeclined(f"the payment is {intent.status}", code=intent.status)
        return charge

    def look_up(self, *, idempotency_key: str) -> Charge | None:
        """See `orders.ports.PaymentGateway.look_up`."""
        with _calling(acts=False):
            found = self._client.v1.payment_intents.search({"query": f"metadata['key']:'{idempotency_key}'"})
        charges = [_charge(intent) for intent in found.data]
        return next((charge for charge in charges if charge.succeeded), next(iter(charges), None))

    def refund(self, *, charge_id: str, amount_minor: int, idempotency_key: str) -> RefundReceipt:
        """See `orders.ports.PaymentGateway.refund`. A charge that is refunded already is an answer too."""
        try:
            with _calling(acts=True):
                made = self._client.v1.refunds.create(
                    {
                        "payment_intent": charge_id,
                        "amount": amount_minor,
                        "metadata": {"key": idempotency_key},
                    },
                    {"idempotency_key": idempotency_key},
                )
        except PaymentRequestRefused as refused:
            cause = refused.__cause__
            if not (isinstance(cause, stripe.InvalidRequestError) and cause.code == "charge_already_refunded"):
                raise
            with _calling(acts=False):
                [made] = self._client.v1.refunds.list({"payment_intent": charge_id, "limit": 1}).data
        return RefundReceipt(id=made.id, amount_minor=made.amount)

    def charges(self, *, since: dt.datetime | None) -> Iterator[ListedCharge]:
        """See `orders.ports.PaymentGateway.charges`."""
        for intent in _listed(self._client.v1.payment_intents.list, since):
            charge = _charge(intent)
            yield ListedCharge(
                **dataclasses.asdict(charge),
                idempotency_key=_said(intent, "key"),
                order_id=_said(intent, "order_id"),
                made_at=_moment(intent.created),
            )

    def refunds(self, *, since: dt.datetime | None) -> Iterator[ListedRefund]:
        """See `orders.ports.PaymentGateway.refunds`."""
        for refund in _listed(self._client.v1.refunds.list, since):
            if refund.status not in UNDONE_REFUNDS:
                yield ListedRefund(
                    id=refund.id,
                    amount_minor=refund.amount,
                    charge_id=refund.payment_intent or "",
                    currency=refund.currency.upper(),
                    idempotency_key=_said(refund, "key"),
                    made_at=_moment(refund.created),
                )


def _listed(ask: Callable[[Any], Any], since: dt.datetime | None) -> Iterator[Any]:
    """The records of a list, newest first. Each page is a call of its own to the breaker."""
    parameters: dict[str, Any] = {"limit": PAGE}
    if since:
        parameters["created"] = {"gte": int(since.timestamp())}
    with _calling(acts=False):
        page = ask(parameters)
    while True:
        yield from page.data
        if not page.has_more:
            return
        with _calling(acts=False):
            page = page.next_page()


def _said(record: Any, name: str) -> str:
    """What we said about a record when we made it; empty when somebody else did."""
    return str(getattr(record.metadata, name, ""))


def _moment(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _charge(intent: Any) -> Charge:
    error = intent.last_payment_error
    return Charge(
        id=intent.id,
        amount_minor=intent.amount,
        currency=intent.currency.upper(),
        succeeded=intent.status == "succeeded",
        decline_code=getattr(error, "decline_code", None) or getattr(error, "code", None) or "",
        message=getattr(error, "message", None) or "",
    )


@contextlib.contextmanager
def _calling(*, acts: bool) -> Iterator[None]:
    """Guard a call by the breaker and say what its failure means; `acts` is false for mere questions."""
    with breaker("payments").guard():
        try:
            yield
        except stripe.CardError as declined:
            code = (declined.error and declined.error.decline_code) or declined.code or ""
            raise PaymentDeclined(declined.user_message or "the card was declined", code=code) from declined
        except stripe.RateLimitError as limited:
            raise Outage("Stripe limits our rate", retry_after=_retry_after(limited)) from limited
        except stripe.APIConnectionError as failure:
            if not acts or _never_sent(failure):
                raise Outage(f"Stripe does not answer: {failure.user_message}") from failure
            raise OutcomeUnknown("the connection to Stripe broke before its answer") from failure
        except (
            stripe.InvalidRequestError,
            stripe.AuthenticationError,
            stripe.PermissionError,
            stripe.IdempotencyError,
        ) as refused:
            raise PaymentRequestRefused(str(refused)) from refused
        except stripe.StripeError as failure:
            if failure.http_status == 503:
                raise Outage("Stripe is not available", retry_after=_retry_after(failure)) from failure
            if failure.http_status == 409:
                raise CallInFlight("a request with this key is in flight at Stripe") from failure
            if acts:
                raise OutcomeUnknown(f"Stripe answered {failure.http_status}") from failure
            raise Transient(f"Stripe answered {failure.http_status}") from failure


def _never_sent(failure: stripe.APIConnectionError) -> bool:
    """Whether no connection came about, so that Stripe cannot have acted."""
    cause = failure.__cause__ or failure.__context__
    if isinstance(cause, requests.exceptions.ConnectTimeout):
        return True
    reason = getattr(cause.args[0] if cause and cause.args else None, "reason", None)
    return type(reason).__name__ in ("NewConnectionError", "NameResolutionError")


def _retry_after(failure: stripe.StripeError) -> dt.timedelta | None:
    headers = {name.lower(): value for name, value in (failure.headers or {}).items()}
    seconds = headers.get("retry-after", "")
    return dt.timedelta(seconds=int(seconds)) if seconds.isdigit() else None
