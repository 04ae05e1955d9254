"""Paying, confirming, cancelling and refunding, with the SDK of Stripe."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor

import pytest
import stripe

from orderflow.sandbox.launch import Sandbox

from .clients import ask, payment, stripe_client


def test_a_confirmed_payment_succeeds_and_is_recorded(payments: Sandbox) -> None:
    client = stripe_client(payments)

    intent = client.v1.payment_intents.create(
        payment(description="Order OF-1", transfer_group="OF-1"), {"idempotency_key": "order-1-charge"}
    )

    assert (intent.status, intent.amount, intent.amount_received, intent.currency) == (
        "succeeded",
        4200,
        4200,
        "gbp",
    )
    assert intent.metadata["order_id"] == "order-1"
    assert client.v1.payment_intents.retrieve(intent.id).status == "succeeded"
    [entry] = payments.ledger()
    assert (entry["kind"], entry["id"], entry["status"], entry["amount"]) == (
        "payment_intent",
        intent.id,
        "succeeded",
        4200,
    )
    assert (entry["idempotency_key"], entry["times_seen"], entry["transfer_group"]) == (
        "order-1-charge",
        1,
        "OF-1",
    )


def test_automatic_payment_methods_pay_too(payments: Sandbox) -> None:
    params = payment(automatic_payment_methods={"enabled": True, "allow_redirects": "never"})
    del params["payment_method_types"]

    assert stripe_client(payments).v1.payment_intents.create(params).status == "succeeded"


def test_redirecting_payment_methods_need_a_return_url(payments: Sandbox) -> None:
    params = payment()
    del params["payment_method_types"]

    with pytest.raises(stripe.InvalidRequestError, match="return_url"):
        stripe_client(payments).v1.payment_intents.create(params)
    assert payments.ledger() == []


@pytest.mark.parametrize(
    ("method", "code", "decline_code"),
    [
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedLostCard", "card_declined", "lost_card"),
        ("pm_card_visa_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "expired_card"),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", "incorrect_cvc"),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", "processing_error"),
    ],
)
def test_a_declined_card_gives_an_error_that_contains_the_intent(
    payments: Sandbox, method: str, code: str, decline_code: str
) -> None:
    with pytest.raises(stripe.CardError) as raised:
        stripe_client(payments).v1.payment_intents.create(payment(payment_method=method))

    error = raised.value.error
    assert (raised.value.http_status, raised.value.code, error.decline_code) == (402, code, decline_code)
    assert error.payment_intent.status == "requires_payment_method"
    assert raised.value.request_id.startswith("req_")
    [entry] = payments.ledger()
    assert (entry["status"], entry["amount_received"]) == ("requires_payment_method", 0)
    assert entry["last_payment_error"]["decline_code"] == decline_code


@pytest.mark.parametrize(
    "changed",
    [
        {"payment_method": "4242424242424242"},
        {"payment_method": "4242 4242 4242 4242"},
        {"payment_method_data": {"type": "card", "card": {"number": "4242424242424242"}}},
    ],
)
def test_real_card_numbers_are_refused_and_not_stored(payments: Sandbox, changed: dict[str, object]) -> None:
    with pytest.raises(stripe.StripeError, match="generally unsafe") as raised:
        stripe_client(payments).v1.payment_intents.create(payment(**changed))

    assert raised.value.http_status == 402
    assert "4242" not in raised.value.http_body
    kept = b"".join(path.read_bytes() for path in payments.data_dir.glob("payments*"))
    assert b"4242424242424242" not in kept
    assert "4242" not in str(payments.calls())


@pytest.mark.parametrize(
    ("changed", "code", "param"),
    [
        ({"amount": None}, "parameter_missing", "amount"),
        ({"amount": 0}, "parameter_invalid_integer", "amount"),
        ({"amount": "12.50"}, "parameter_invalid_integer", "amount"),
        ({"amount": 100_000_000}, "amount_too_large", "amount"),
        ({"currency": None}, "parameter_missing", "currency"),
        ({"payment_method": "pm_card_nobody"}, "resource_missing", "payment_method"),
        ({"ammount": 1}, "parameter_unknown", "ammount"),
    ],
)
def test_wrong_parameters_are_refused_as_stripe_does(
    payments: Sandbox, changed: dict[str, object], code: str, param: str
) -> None:
    params = {name: value for name, value in payment(**changed).items() if value is not None}

    with pytest.raises(stripe.InvalidRequestError) as raised:
        stripe_client(payments).v1.payment_intents.create(params)

    assert (raised.value.http_status, raised.value.code, raised.value.param) == (400, code, param)
    assert payments.ledger() == []


def test_an_unknown_payment_is_not_found(payments: Sandbox) -> None:
    with pytest.raises(stripe.InvalidRequestError) as raised:
        stripe_client(payments).v1.payment_intents.retrieve("pi_unknown")

    assert (raised.value.http_status, raised.value.code) == (404, "resource_missing")


@pytest.mark.parametrize("key", ["sk_live_secret", "pk_test_public"])
def test_only_secret_test_keys_are_accepted(payments: Sandbox, key: str) -> None:
    with pytest.raises(stripe.AuthenticationError) as raised:
        stripe_client(payments, key=key).v1.payment_intents.create(payment())

    assert raised.value.http_status == 401
    assert ask(payments, "GET", "/v1/payment_intents").status == 401


def test_basic_authentication_is_accepted(payments: Sandbox) -> None:
    credentials = base64.b64encode(b"sk_test_sandbox:").decode()

    assert ask(payments, "GET", "/v1/refunds", headers={"Authorization": f"Basic {credentials}"}).status == 200


def test_a_payment_may_be_confirmed_later(payments: Sandbox) -> None:
    client = stripe_client(payments)
    intent = client.v1.payment_intents.create(payment(confirm=False))
    assert (intent.status, intent.amount_received) == ("requires_confirmation", 0)

    assert client.v1.payment_intents.confirm(intent.id).status == "succeeded"
    assert [entry["status"] for entry in payments.ledger()] == ["succeeded"]


def test_a_declined_payment_may_be_tried_with_another_card(payments: Sandbox) -> None:
    client = stripe_client(payments)
    with pytest.raises(stripe.CardError) as raised:
        client.v1.payment_intents.create(payment(payment_method="pm_card_visa_chargeDeclined"))
    declined = raised.value.error.payment_intent.id

    confirmed = client.v1.payment_intents.confirm(declined, {"payment_method": "pm_card_mastercard"})
    assert (confirmed.id, confirmed.status) == (declined, "succeeded")


def test_only_an_unpaid_payment_can_be_cancelled(payments: Sandbox) -> None:
    client = stripe_client(payments)
    unpaid = client.v1.payment_intents.create(payment(confirm=False))
    paid = client.v1.payment_intents.create(payment())

    cancelled = client.v1.payment_intents.cancel(unpaid.id, {"cancellation_reason": "abandoned"})
    assert (cancelled.status, cancelled.cancellation_reason) == ("canceled", "abandoned")

    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.payment_intents.cancel(paid.id)
    assert raised.value.code == "payment_intent_unexpected_state"


def test_refunds_add_up_to_what_was_paid_and_no_more(payments: Sandbox) -> None:
    client = stripe_client(payments)
    intent = client.v1.payment_intents.create(payment(amount=1_000))

    part = client.v1.refunds.create(
        {"payment_intent": intent.id, "amount": 300, "metadata": {"order_id": "order-1"}},
        {"idempotency_key": "order-1-refund"},
    )
    assert (part.status, part.amount, part.payment_intent) == ("succeeded", 300, intent.id)

    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.refunds.create({"payment_intent": intent.id, "amount": 701})
    assert (raised.value.code, raised.value.param) == ("amount_too_large", "amount")

    rest = client.v1.refunds.create({"payment_intent": intent.id})
    assert rest.amount == 700

    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.refunds.create({"payment_intent": intent.id})
    assert raised.value.code == "charge_already_refunded"

    [paid] = payments.ledger(kind="payment_intent")
    assert (paid["amount_received"], paid["amount_refunded"]) == (1000, 1000)
    assert [entry["amount"] for entry in payments.ledger(kind="refund")] == [300, 700]
    assert payments.ledger(kind="refund")[0]["idempotency_key"] == "order-1-refund"


def test_refunds_of_a_payment_can_be_listed_and_shown(payments: Sandbox) -> None:
    client = stripe_client(payments)
    first, second = (client.v1.payment_intents.create(payment()) for _ in range(2))
    refund = client.v1.refunds.create({"payment_intent": first.id})
    client.v1.refunds.create({"charge": str(second.latest_charge)})

    listed = client.v1.refunds.list({"payment_intent": first.id})
    assert [one.id for one in listed.data] == [refund.id]
    assert client.v1.refunds.retrieve(refund.id).amount == 4200


def test_an_unpaid_payment_cannot_be_refunded(payments: Sandbox) -> None:
    client = stripe_client(payments)
    intent = client.v1.payment_intents.create(payment(confirm=False))

    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge"):
        client.v1.refunds.create({"payment_intent": intent.id})


def test_parallel_refunds_return_no_more_than_was_paid(payments: Sandbox) -> None:
    client = stripe_client(payments)
    intent = client.v1.payment_intents.create(payment(amount=1_000))

    def give_back(_: int) -> bool:
        try:
            client.v1.refunds.create({"payment_intent": intent.id, "amount": 300})
        except stripe.InvalidRequestError:
            return False
        return True

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(give_back, range(10))) == 3
    assert sum(entry["amount"] for entry in payments.ledger(kind="refund")) == 900
