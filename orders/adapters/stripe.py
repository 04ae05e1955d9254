"""
Payments through Stripe's official SDK.

A charge carries its key as the request's idempotency key and as metadata, so that it can be found after the
provider has dropped the key. Stripe's search is up to a minute behind its writes; until then Stripe recommends
repeating the request with the same key, and that is what the step does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import requests
from django.conf import settings

from orders.adapters import stripe_amounts, stripe_states
from orders.ports import (
    CallInFlight,
    Charge,
    ChargeState,
    ListedCharge,
    ListedRefund,
    OutcomeUnknown,
    PaymentDeclined,
    RefundReceipt,
    RefundState,
)
from outbox import lean_imports
from outbox.database import storable
from outbox.http import answers, bounded, retry_after, sending
from outbox.resilience import CredentialsRefused, Outage, Permanent, SettingsRefused, Transient, breaker

with lean_imports.without("aiohttp", "anyio", "httpx"):  # for asynchronous requests: 7 of its 8 MB
    import stripe

PAGE = 100
"""Records per page of a list; Stripe's maximum."""

LIKELIEST = (
    ChargeState.CAPTURED, ChargeState.PENDING, ChargeState.HELD, ChargeState.UNFINISHED, ChargeState.REFUSED,
)  # fmt: skip
"""Of several charges under one key, one that may capture money takes precedence over one that cannot."""

REFUSED_AMOUNTS = ("amount_too_small", "amount_too_large")
"""Stripe's codes for amounts that cannot be charged: a result for this order, not an error of ours."""


REFUSED_ACCOUNTS = frozenset(
    """
    account_closed account_invalid api_key_expired country_unsupported payment_method_unactivated
    platform_account_required platform_api_key_expired secret_key_required testmode_charges_only
    tls_version_unsupported
    """.split()  # noqa: SIM905
)
"""Stripe's codes that concern our account or key, whatever the request is (docs.stripe.com/error-codes)."""

OF_ANOTHER_MODE = "exists in live mode, but a test mode key was used"
"""Stripe's message for live cards if our key is a test key. The opposite case concerns one client, who has sent
us a test card."""

NOWHERE = "http://not-configured.invalid"
"""The address that is called if none is set: never Stripe by accident."""


class PaymentRequestRefused(Permanent):
    """Stripe refuses the request itself: an unknown card token, or a key of another request."""


class StripeGateway:
    """`orders.ports.PaymentGateway` on Stripe's PaymentIntents."""

    def __init__(self) -> None:
        timeout = settings.PROVIDER_TIMEOUT.total_seconds()
        self._client = stripe.StripeClient(
            settings.STRIPE_API_KEY or "unset",
            max_network_retries=0,  # our own policy retries, and it distinguishes unknown outcomes
            http_client=stripe.RequestsClient(
                timeout=(min(2.0, timeout), timeout),
                session=bounded.bound(requests.Session(), seconds=timeout),
            ),
            base_addresses={"api": settings.STRIPE_API_BASE or NOWHERE},
        )

    def charge(
        self, *, amount_minor: int, currency: str, payment_method: str, order_id: str, idempotency_key: str
    ) -> Charge:
        """See `orders.ports.PaymentGateway.charge`."""
        # Typed as Any: Stripe requires this list with `confirm`, but its types do not include it.
        parameters: Any = {
            "amount": _amount(amount_minor, currency),
            "currency": currency.lower(),
            "payment_method": payment_method,
            "payment_method_types": ["card"],
            "confirm": True,
            "metadata": {"order_id": order_id, "key": idempotency_key},
        }
        with _calling(acts=True):
            intent = self._client.v1.payment_intents.create(parameters, {"idempotency_key": idempotency_key})
        return _charge(intent)

    def look_up(self, *, idempotency_key: str) -> Charge | None:
        """
        See `orders.ports.PaymentGateway.look_up`.

        The search shows the state of an intent up to a minute ago. So only a capture is concluded from it.
        """
        with _calling(acts=False):
            found = self._client.v1.payment_intents.search({"query": f"metadata['key']:'{idempotency_key}'"})
            intents: list[Any] = answers.items(found.data)
            captured = [intent for intent in intents if intent.status == "succeeded"]
            ids = [answers.identifier(intent.id) for intent in intents]
        if captured:
            return _charge(captured[0])
        charges = [self._now(charge_id) for charge_id in ids]
        return min(charges, key=lambda charge: LIKELIEST.index(charge.state), default=None)

    def cancel(self, *, charge_id: str) -> Charge:
        """See `orders.ports.PaymentGateway.cancel`."""
        try:
            with _calling(acts=True):
                intent = self._client.v1.payment_intents.cancel(charge_id)
        except PaymentRequestRefused as refused:
            if _code_of(refused) != "payment_intent_unexpected_state":
                raise
            return self._now(charge_id)
        return _charge(intent)

    def _now(self, charge_id: str) -> Charge:
        with _calling(acts=False):
            intent = self._client.v1.payment_intents.retrieve(charge_id)
        return _charge(intent)

    def refusal_of(self, amount_minor: int, currency: str) -> str:
        """See `orders.ports.PaymentGateway.refusal_of`."""
        return stripe_amounts.refusal_of(amount_minor, currency)

    def refund(
        self, *, charge_id: str, amount_minor: int, currency: str, idempotency_key: str
    ) -> RefundReceipt:
        """See `orders.ports.PaymentGateway.refund`. An already refunded charge is a valid result too."""
        try:
            with _calling(acts=True):
                made = self._client.v1.refunds.create(
                    {
                        "payment_intent": charge_id,
                        "amount": _amount(amount_minor, currency),
                        "metadata": {"key": idempotency_key},
                    },
                    {"idempotency_key": idempotency_key},
                )
        except PaymentRequestRefused as refused:
            if _code_of(refused) != "charge_already_refunded":
                raise
            return self._refunded(charge_id)
        receipt = _receipt(made)
        if receipt.state is RefundState.DONE:
            return receipt
        # A repeated request gets the stored first response, not the current state.
        with _calling(acts=False):
            made = self._client.v1.refunds.retrieve(receipt.id)
        return _receipt(made)

    def _refunded(self, charge_id: str) -> RefundReceipt:
        """The existing refund of a charge; of several, the one that has progressed furthest."""
        receipts = [_receipt(refund) for refund in self._refunds_of(charge_id)]
        if not receipts:
            raise OutcomeUnknown(f"Stripe says that {charge_id} was refunded, and lists no refund of it")
        done = [receipt for receipt in receipts if receipt.state is RefundState.DONE]
        if len(done) > 1:  # in parts, by hand
            return dataclasses.replace(done[0], amount_minor=sum(receipt.amount_minor for receipt in done))
        return min(receipts, key=lambda receipt: list(RefundState).index(receipt.state))

    def look_up_refund(self, *, charge_id: str, idempotency_key: str) -> RefundReceipt | None:
        """See `orders.ports.PaymentGateway.look_up_refund`."""
        made = self._refunds_of(charge_id)
        ours = [refund for refund in made if _said(refund, "key").startswith(idempotency_key)]
        receipts = [receipt for refund in ours if (receipt := _receipt(refund)).state is not RefundState.FAILED]
        return min(receipts, key=lambda receipt: list(RefundState).index(receipt.state), default=None)

    def _refunds_of(self, charge_id: str) -> list[Any]:
        return list(_listed(self._client.v1.refunds.list, None, payment_intent=charge_id))

    def charges(self, *, since: dt.datetime | None) -> Iterator[ListedCharge]:
        """See `orders.ports.PaymentGateway.charges`."""
        for intent in _listed(self._client.v1.payment_intents.list, since):
            charge = _charge(intent, listed=True)
            with _reading():
                listed = ListedCharge(
                    **dataclasses.asdict(charge),
                    idempotency_key=_said(intent, "key"),
                    order_id=_said(intent, "order_id"),
                    made_at=answers.moment(intent.created),
                )
            yield listed

    def refunds(self, *, since: dt.datetime | None) -> Iterator[ListedRefund]:
        """See `orders.ports.PaymentGateway.refunds`."""
        for refund in _listed(self._client.v1.refunds.list, since):
            receipt = _receipt(refund, listed=True)
            if receipt.state is not RefundState.FAILED:
                with _reading():
                    listed = ListedRefund(
                        **dataclasses.asdict(receipt),
                        charge_id=refund.payment_intent,
                        currency=answers.currency(refund.currency),
                        idempotency_key=_said(refund, "key"),
                        made_at=answers.moment(refund.created),
                    )
                yield listed


def _listed(ask: Callable[[Any], Any], since: dt.datetime | None, **wanted: str) -> Iterator[Any]:
    """The records of a list, newest first. Each page is a separate call for the breaker."""
    parameters: dict[str, Any] = {"limit": PAGE, **wanted}
    if since:
        parameters["created"] = {"gte": int(since.timestamp())}
    pages = answers.Pages("Stripe's")
    while True:
        with _calling(acts=False):
            page = ask(parameters)
            listed: list[Any] = answers.items(page.data)
            place = (listed[-1].id if listed else "") if page.has_more else None
        yield from listed
        if place is None:
            return
        parameters["starting_after"] = pages.continue_after(place)


def _said(record: Any, name: str) -> str:
    """The metadata that we set on a record; empty if the record is not ours."""
    return storable.identifier(getattr(_field(record, "metadata"), name, ""))


def _field(record: Any, name: str) -> Any:
    """A descriptive field of a record; None if it is missing, which does not invalidate the record."""
    return getattr(record, name, None)


def _reading() -> contextlib.AbstractContextManager[None]:
    return answers.reading("Stripe's", OutcomeUnknown)


def _amount(amount_minor: int, currency: str) -> int:
    try:
        return stripe_amounts.to_stripe(amount_minor, currency)
    except ValueError as unknown:
        raise PaymentDeclined(str(unknown), code="amount") from unknown


def _charge(intent: Any, *, listed: bool = False) -> Charge:
    """An intent as a `Charge`. Lists contain others' records too: there an unknown status may still capture."""
    with _reading():
        error, status = _field(intent, "last_payment_error"), intent.status
        state = (
            stripe_states.INTENTS.get(status, ChargeState.PENDING)
            if listed
            else stripe_states.of_intent(status)
        )
        code, method = _field(error, "decline_code") or _field(error, "code"), _field(intent, "payment_method")
        return Charge(
            id=answers.identifier(intent.id),
            amount_minor=answers.amount(
                stripe_amounts.from_stripe(answers.amount(_asked_or_captured(intent, state)), intent.currency)
            ),
            currency=answers.currency(intent.currency),
            state=state,
            decline_code=code or ("" if state is ChargeState.CAPTURED else status),
            message=_field(error, "message") or stripe_states.WORDS.get(status, ""),
            payment_method=method if isinstance(method, str) else "",
        )


def _asked_or_captured(intent: Any, state: ChargeState) -> Any:
    """The captured amount may be only a part of the requested one."""
    received = _field(intent, "amount_received") if state is ChargeState.CAPTURED else None
    return intent.amount if received is None else received


def _receipt(refund: Any, *, listed: bool = False) -> RefundReceipt:
    with _reading():
        refund_id, status = answers.identifier(refund.id), refund.status
        state = (
            stripe_states.REFUNDS.get(status, RefundState.PENDING)
            if listed
            else stripe_states.of_refund(status)
        )
        because = f": {storable.text(reason)}" if (reason := _field(refund, "failure_reason")) else ""
        return RefundReceipt(
            id=refund_id,
            amount_minor=answers.amount(
                stripe_amounts.from_stripe(answers.amount(refund.amount), refund.currency)
            ),
            state=state,
            message=f"Stripe's refund {refund_id} is {status}{because}",
        )


def _code_of(refused: BaseException) -> str:
    return storable.identifier(getattr(refused.__cause__, "code", None))


@contextlib.contextmanager
def _calling(*, acts: bool) -> Iterator[None]:
    """Guard a call by the breaker and classify its failure; `acts` is false for queries."""
    unreadable = OutcomeUnknown if acts else Transient
    with breaker("payments").guard(), answers.reading("Stripe's", unreadable):
        try:
            yield
        except stripe.CardError as declined:
            code = _field(declined.error, "decline_code") or declined.code or ""
            raise PaymentDeclined(declined.user_message or "the card was declined", code=code) from declined
        except stripe.RateLimitError as limited:
            raise _outage("Stripe limits our rate", limited) from limited
        except stripe.APIConnectionError as failure:
            cause = failure.__cause__ or failure.__context__
            if isinstance(cause, requests.exceptions.TooManyRedirects):
                raise SettingsRefused(
                    "STRIPE_API_BASE is not the address of Stripe's API: it redirects",
                    settings="STRIPE_API_BASE",
                ) from failure
            if not acts or sending.was_never_sent(cause):
                raise Outage(f"Stripe does not respond: {failure.user_message}") from failure
            raise OutcomeUnknown("the connection to Stripe broke before its response") from failure
        except stripe.InvalidRequestError as refused:
            if refused.code in REFUSED_AMOUNTS and acts:
                raise PaymentDeclined(refused.user_message or str(refused), code=refused.code) from refused
            if refused.code in REFUSED_ACCOUNTS or OF_ANOTHER_MODE in str(refused):
                answer = refused.code if refused.code in REFUSED_ACCOUNTS else refused.http_status
                raise CredentialsRefused("Stripe", settings="STRIPE_API_KEY", answer=answer) from refused
            if refused.http_status == 404 and "Unrecognized request URL" in str(refused):
                raise SettingsRefused(
                    "STRIPE_API_BASE is not the address of Stripe's API", settings="STRIPE_API_BASE"
                ) from refused
            raise PaymentRequestRefused(str(refused)) from refused
        except (stripe.AuthenticationError, stripe.PermissionError) as refused:
            raise CredentialsRefused(
                "Stripe", settings="STRIPE_API_KEY", answer=refused.http_status
            ) from refused
        except stripe.IdempotencyError as refused:
            raise PaymentRequestRefused(str(refused)) from refused
        except stripe.StripeError as failure:
            if failure.http_status == 503:
                raise _outage("Stripe is not available", failure) from failure
            if failure.http_status == 409:
                raise CallInFlight("a request with this key is in flight at Stripe") from failure
            if acts:
                raise OutcomeUnknown(f"Stripe answered {failure.http_status}") from failure
            raise Transient(f"Stripe answered {failure.http_status}") from failure


def _outage(what: str, failure: stripe.StripeError) -> Outage:
    asked = retry_after.read(failure.headers)
    return Outage(f"{what}{asked.remark}", retry_after=asked.wait)
