"""The faults of a server, and how they are listed."""

from __future__ import annotations

import http.client
import time

import pytest
import requests
import stripe

from orderflow.sandbox.launch import ControlRefused, Sandbox

from .clients import ask, payment, ship, shipment, stripe_client


def test_slow_waits_and_then_acts(warehouse: Sandbox) -> None:
    warehouse.control(fault="slow", latency_ms=1000, times=1)

    started = time.perf_counter()
    assert ship(warehouse).status == 201
    assert time.perf_counter() - started >= 1

    started = time.perf_counter()
    ship(warehouse)
    assert time.perf_counter() - started < 1


def test_a_slow_server_acts_even_if_the_client_has_timed_out(payments: Sandbox) -> None:
    payments.control(fault="slow", latency_ms=300, times=1)

    with pytest.raises(stripe.APIConnectionError):
        stripe_client(payments, timeout=0.1).v1.payment_intents.create(payment(), {"idempotency_key": "key"})
    assert payments.ledger() == []

    time.sleep(0.4)
    assert [entry["status"] for entry in payments.ledger()] == ["succeeded"]


def test_refuse_resets_the_connection(warehouse: Sandbox) -> None:
    warehouse.control(fault="refuse", times=1)

    with pytest.raises(ConnectionResetError) as raised:
        ship(warehouse)
    # What http.client raises when a connection is closed in peace is derived from it.
    assert type(raised.value) is ConnectionResetError
    assert warehouse.ledger() == []


@pytest.mark.parametrize(("fault", "entries"), [("drop_before", 0), ("drop_after", 1)])
def test_drop_closes_without_a_response_before_or_after_acting(
    warehouse: Sandbox, fault: str, entries: int
) -> None:
    warehouse.control(fault=fault, times=1)

    with pytest.raises(http.client.RemoteDisconnected):
        ship(warehouse)
    assert warehouse.count(kind="shipment") == entries

    assert ship(warehouse).status == (200 if entries else 201)
    assert warehouse.count(kind="shipment") == 1


def test_a_payment_whose_response_was_lost_is_found_and_not_repeated(payments: Sandbox) -> None:
    client = stripe_client(payments)
    payments.control(fault="drop_after", times=1, match="order-1-charge")
    with pytest.raises(stripe.APIConnectionError):
        client.v1.payment_intents.create(payment(), {"idempotency_key": "order-1-charge"})

    [found] = client.v1.payment_intents.search({"query": "metadata['order_id']:'order-1'"}).data
    again = client.v1.payment_intents.create(payment(), {"idempotency_key": "order-1-charge"})

    assert again.id == found.id
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert payments.count() == 1


def test_hang_holds_the_connection_and_closes_it(warehouse: Sandbox) -> None:
    warehouse.control(fault="hang", latency_ms=200)

    started = time.perf_counter()
    with pytest.raises(http.client.RemoteDisconnected):
        ship(warehouse)
    assert time.perf_counter() - started >= 0.2
    with pytest.raises(TimeoutError):
        ship(warehouse, timeout=0.1)
    assert warehouse.ledger() == []


def test_malformed_acts_and_responds_with_a_broken_body(payments: Sandbox) -> None:
    payments.control(fault="malformed", times=1)

    with pytest.raises(stripe.APIError, match="Invalid response body"):
        stripe_client(payments).v1.payment_intents.create(payment())
    assert payments.count() == 1


def test_errors_have_the_format_of_the_provider(payments: Sandbox) -> None:
    client = stripe_client(payments)
    seen = []
    for fault in (
        {"fault": "error"},
        {"fault": "error", "status": 500},
        {"fault": "rate_limit", "retry_after": 7},
    ):
        with payments.failing(**fault), pytest.raises(stripe.StripeError) as raised:
            client.v1.payment_intents.create(payment(), {"idempotency_key": "key"})
        seen.append((type(raised.value), raised.value.http_status, raised.value.headers.get("Retry-After")))

    assert seen == [
        (stripe.APIError, 503, None),
        (stripe.APIError, 500, None),
        (stripe.RateLimitError, 429, "7"),
    ]
    assert payments.ledger() == []
    assert client.v1.payment_intents.create(payment(), {"idempotency_key": "key"}).status == "succeeded"


@pytest.mark.parametrize("match", ["order-7-ship", "OF-7", "/shipments/shp_7"])
def test_a_fault_applies_only_to_matching_requests(warehouse: Sandbox, match: str) -> None:
    warehouse.control(fault="error", match=match)

    assert ship(warehouse, "order-6-ship", shipment(order_number="OF-6")).status == 201
    struck = [
        ship(warehouse, "order-7-ship", shipment(order_number="OF-7")),
        ask(warehouse, "GET", "/shipments/shp_7", headers={"Authorization": "Bearer token"}),
    ]

    assert 503 in [answer.status for answer in struck]
    assert [fault["struck"] for fault in warehouse.faults()] == [1]


def test_a_match_is_found_in_a_form_too(payments: Sandbox) -> None:
    payments.control(fault="error", match="ada lovelace <ada@example.com>")

    with pytest.raises(stripe.APIError):
        stripe_client(payments).v1.payment_intents.create(payment(description="ada lovelace <ada@example.com>"))


def test_a_fault_strikes_as_often_as_requested(warehouse: Sandbox) -> None:
    fault = warehouse.control(fault="error", status=500, times=2)

    assert [ship(warehouse).status for _ in range(4)] == [500, 500, 201, 200]
    [listed] = warehouse.faults()
    assert (listed["id"], listed["struck"], listed["active"]) == (fault["id"], 2, False)


def test_a_probability_with_a_seed_strikes_the_same_requests_every_time(warehouse: Sandbox) -> None:
    def struck() -> list[int]:
        with warehouse.failing(fault="error", probability=0.5, seed=42):
            return [ship(warehouse, str(number)).status // 100 for number in range(40)]

    first = struck()
    assert struck() == first
    assert 10 < first.count(5) < 30


def test_the_first_fault_decides_and_slow_ones_add_up(warehouse: Sandbox) -> None:
    warehouse.control(fault="slow", latency_ms=100)
    warehouse.control(fault="error", status=500, times=1)
    warehouse.control(fault="drop_after", times=1)

    started = time.perf_counter()
    assert ship(warehouse).status == 500
    assert time.perf_counter() - started >= 0.1
    assert [fault["struck"] for fault in warehouse.faults()] == [1, 1, 0]


def test_faults_strike_on_a_connection_that_is_kept_open(warehouse: Sandbox) -> None:
    session = requests.Session()
    headers = {"Authorization": "Bearer token"}
    assert session.get(f"{warehouse.url}/shipments?key=x", headers=headers, timeout=5).status_code == 200

    warehouse.control(fault="refuse", times=1)

    with pytest.raises(requests.ConnectionError):
        session.get(f"{warehouse.url}/shipments?key=x", headers=headers, timeout=5)
    assert session.get(f"{warehouse.url}/shipments?key=x", headers=headers, timeout=5).status_code == 200


def test_faults_can_be_removed_one_by_one_and_all_at_once(warehouse: Sandbox) -> None:
    first = warehouse.control(fault="error")
    warehouse.control(fault="error", status=500)
    warehouse.clear_faults(first["id"])
    assert ship(warehouse).status == 500

    warehouse.clear_faults()
    assert warehouse.faults() == []
    assert ship(warehouse).status == 201
    with pytest.raises(ControlRefused, match="There is no fault 999"):
        warehouse.clear_faults(999)


def test_calls_list_the_requests_and_the_faults_that_applied(warehouse: Sandbox) -> None:
    ship(warehouse)
    with warehouse.failing(fault="drop_before"), pytest.raises(http.client.RemoteDisconnected):
        ship(warehouse, "other")

    dropped, shipped = warehouse.calls(limit=2)
    assert (shipped["method"], shipped["path"], shipped["key"]) == ("POST", "/shipments", "order-1-ship")
    assert (shipped["fault"], shipped["status"]) == (None, 201)
    assert (dropped["key"], dropped["fault"], dropped["status"]) == ("other", "drop_before", None)


@pytest.mark.parametrize(
    ("fault", "about"),
    [
        ({}, '"fault" must be one of'),
        ({"fault": "explode"}, "drop_after"),
        ({"fault": "slow", "latency_ms": -1}, "latency_ms"),
        ({"fault": "slow", "latency_ms": True}, "latency_ms"),
        ({"fault": "error", "status": 200}, "status"),
        ({"fault": "error", "times": 0}, "times"),
        ({"fault": "error", "probability": 2}, "probability"),
        ({"fault": "rate_limit", "retry_after": 0.5}, "retry_after"),
        ({"fault": "error", "match": ""}, "match"),
        ({"fault": "error", "seed": "x"}, "seed"),
        ({"fault": "error", "time": 1}, "time"),
    ],
)
def test_an_invalid_fault_is_refused_with_a_sentence(
    warehouse: Sandbox, fault: dict[str, object], about: str
) -> None:
    answer = ask(warehouse, "POST", "/_control", fault)

    assert answer.status == 400
    assert about in answer.json["error"]
    assert warehouse.faults() == []


@pytest.mark.parametrize(("body", "status"), [(b"[]", 400), (b"{", 400), (b"\xff", 400), (b"null", 400)])
def test_a_fault_must_be_a_json_object(warehouse: Sandbox, body: bytes, status: int) -> None:
    answer = ask(warehouse, "POST", "/_control", body, {"Content-Type": "application/json"})

    assert answer.status == status
    assert "JSON" in answer.json["error"]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_form_on_a_foreign_page_cannot_add_a_fault(warehouse: Sandbox, media_type: str) -> None:
    answer = ask(warehouse, "POST", "/_control", b'{"fault": "error"}', {"Content-Type": media_type})

    assert answer.status == 415
    assert warehouse.faults() == []
