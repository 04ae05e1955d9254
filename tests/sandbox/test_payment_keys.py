"""Idempotency keys, as Stripe documents them for its API v1."""

from __future__ import annotations

import collections
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import stripe

from orderflow.sandbox.launch import Sandbox

from .clients import payment, stripe_client


def test_a_repeated_request_gets_the_same_response(payments: Sandbox) -> None:
    client = stripe_client(payments)

    first, again = (client.v1.payment_intents.create(payment(), {"idempotency_key": "key"}) for _ in range(2))

    assert again.id == first.id
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert again.last_response.headers["Request-Id"] != first.last_response.headers["Request-Id"]
    [entry] = payments.ledger()
    assert entry["times_seen"] == 2


def test_a_declined_card_stays_declined_under_its_key(payments: Sandbox) -> None:
    client = stripe_client(payments)
    declines = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as raised:
            client.v1.payment_intents.create(
                payment(payment_method="pm_card_visa_chargeDeclined"), {"idempotency_key": "key"}
            )
        declines.append(raised.value)

    first, again = declines
    assert again.json_body == first.json_body
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(payments.ledger()) == 1


def test_a_key_belongs_to_its_parameters(payments: Sandbox) -> None:
    client = stripe_client(payments)
    client.v1.payment_intents.create(payment(), {"idempotency_key": "key"})

    with pytest.raises(stripe.IdempotencyError, match="same parameters") as raised:
        client.v1.payment_intents.create(payment(amount=1), {"idempotency_key": "key"})

    assert raised.value.http_status == 400
    assert len(payments.ledger()) == 1


def test_a_key_belongs_to_its_endpoint(payments: Sandbox) -> None:
    client = stripe_client(payments)
    intent = client.v1.payment_intents.create(payment(), {"idempotency_key": "key"})

    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        client.v1.refunds.create({"payment_intent": intent.id}, {"idempotency_key": "key"})


def test_a_key_can_be_used_again_when_the_parameters_were_refused(payments: Sandbox) -> None:
    client = stripe_client(payments)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.payment_intents.create(payment(amount=0), {"idempotency_key": "key"})

    assert client.v1.payment_intents.create(payment(), {"idempotency_key": "key"}).status == "succeeded"


def test_a_key_has_at_most_255_characters(payments: Sandbox) -> None:
    client = stripe_client(payments)
    client.v1.payment_intents.create(payment(), {"idempotency_key": "k" * 255})

    with pytest.raises(stripe.IdempotencyError, match="255"):
        client.v1.payment_intents.create(payment(), {"idempotency_key": "k" * 256})


def test_a_key_in_flight_is_a_conflict(payments: Sandbox) -> None:
    client = stripe_client(payments)
    payments.control(fault="slow", latency_ms=400, times=1, match="key")
    first = threading.Thread(
        target=client.v1.payment_intents.create, args=(payment(), {"idempotency_key": "key"})
    )
    first.start()
    while not payments.faults()[0]["struck"]:
        time.sleep(0.01)

    with pytest.raises(stripe.APIError) as raised:
        client.v1.payment_intents.create(payment(), {"idempotency_key": "key"})
    first.join()

    assert (raised.value.http_status, raised.value.error.code) == (409, "idempotency_key_in_use")
    assert client.v1.payment_intents.create(payment(), {"idempotency_key": "key"}).status == "succeeded"
    assert len(payments.ledger()) == 1


def test_a_hundred_parallel_requests_with_one_key_are_one_payment(payments: Sandbox) -> None:
    client = stripe_client(payments)
    together = threading.Barrier(100, timeout=10)

    def pay(_: int) -> str:
        together.wait()
        try:
            return client.v1.payment_intents.create(payment(), {"idempotency_key": "key"}).id
        except stripe.APIError as conflict:
            return str(conflict.error.code)

    with ThreadPoolExecutor(100) as pool:
        outcomes = collections.Counter(pool.map(pay, range(100)))

    [entry] = payments.ledger()
    assert set(outcomes) <= {entry["id"], "idempotency_key_in_use"}
    assert outcomes[entry["id"]] == entry["times_seen"]


def test_parallel_payments_with_different_keys_do_not_block_each_other(payments: Sandbox) -> None:
    client = stripe_client(payments)

    def pay(number: int) -> str:
        params = payment(metadata={"order_id": str(number)})
        return client.v1.payment_intents.create(params, {"idempotency_key": str(number)}).id

    with ThreadPoolExecutor(20) as pool:
        ids = set(pool.map(pay, range(200)))

    assert len(ids) == 200
    assert {entry["id"] for entry in payments.ledger()} == ids


def test_an_expired_key_is_forgotten(tmp_path: Path) -> None:
    with Sandbox("payments", tmp_path, options=["--key-hours", str(0.2 / 3600)]) as payments:
        client = stripe_client(payments)
        first = client.v1.payment_intents.create(payment(), {"idempotency_key": "key"})
        time.sleep(0.25)

        assert client.v1.payment_intents.create(payment(), {"idempotency_key": "key"}).id != first.id
        assert len(payments.ledger()) == 2
