"""The warehouse ships once per key, or responds with the reason."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orderflow.sandbox.launch import Sandbox

from .clients import ask, ship, shipment

TOKEN = {"Authorization": "Bearer token"}


def test_a_shipment_is_created_and_recorded(warehouse: Sandbox) -> None:
    answer = ship(warehouse)

    assert answer.status == 201
    assert {"id", "tracking_number", "carrier", "created_at"} <= answer.json.keys()
    assert answer.headers["Location"] == f"/shipments/{answer.json['id']}"
    assert ask(warehouse, "GET", answer.headers["Location"], headers=TOKEN).json == answer.json
    [entry] = warehouse.ledger()
    assert (entry["kind"], entry["id"], entry["order_number"]) == ("shipment", answer.json["id"], "OF-1")
    assert (entry["idempotency_key"], entry["times_seen"]) == ("order-1-ship", 1)


def test_the_same_key_ships_once(warehouse: Sandbox) -> None:
    first, again = ship(warehouse), ship(warehouse)

    assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.json == first.json
    assert [entry["times_seen"] for entry in warehouse.ledger()] == [2]


def test_a_key_belongs_to_its_shipment(warehouse: Sandbox) -> None:
    ship(warehouse)

    answer = ship(warehouse, body=shipment(country="FR"))

    assert (answer.status, answer.json["code"]) == (422, "key_reused")
    assert warehouse.count() == 1


def test_a_hundred_parallel_requests_with_one_key_are_one_shipment(warehouse: Sandbox) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: ship(warehouse), range(100)))

    assert {answer.status for answer in answers} <= {200, 201, 409}
    assert [answer.status for answer in answers].count(201) == 1
    [entry] = warehouse.ledger()
    assert {answer.json["id"] for answer in answers if answer.status != 409} == {entry["id"]}


def test_a_key_in_flight_is_a_conflict(warehouse: Sandbox) -> None:
    warehouse.control(fault="slow", latency_ms=300, times=1)
    first = threading.Thread(target=ship, args=(warehouse,))
    first.start()
    while not warehouse.faults()[0]["struck"]:
        time.sleep(0.01)

    answer = ship(warehouse)
    first.join()

    assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (409, "key_in_use", "1")


def test_an_unshippable_order_is_refused_every_time(warehouse: Sandbox) -> None:
    body = shipment(lines=[{"sku": "A", "quantity": 1}, {"sku": "NOSHIP-PIANO", "quantity": 1}])

    first, again = ship(warehouse, body=body), ship(warehouse, body=body)

    assert first.status == again.status == 422
    assert first.json == again.json == {"code": "shipment_refused", "reason": "NOSHIP-PIANO cannot be shipped."}
    assert [(entry["kind"], entry["times_seen"]) for entry in warehouse.ledger()] == [("refusal", 2)]
    assert ask(warehouse, "GET", "/shipments?key=order-1-ship", headers=TOKEN).json == {"data": []}


def test_countries_can_be_refused_and_a_token_can_be_required(tmp_path: Path) -> None:
    options = ["--refuse-country", "KP", "--refuse-country", "xx", "--token", "token"]
    with Sandbox("warehouse", tmp_path, options=options) as warehouse:
        assert ship(warehouse, "a", shipment(country="KP")).json["code"] == "shipment_refused"
        assert ship(warehouse, "b", shipment(country="XX")).json["code"] == "shipment_refused"
        assert ship(warehouse, "c").status == 201
        assert ask(warehouse, "GET", "/shipments/x", headers={"Authorization": "Bearer other"}).status == 401


def test_a_shipment_is_found_by_its_key(warehouse: Sandbox) -> None:
    shipped = ship(warehouse, "order 1/ship").json
    ship(warehouse, "order-2-ship")

    assert ask(warehouse, "GET", "/shipments?key=order%201%2Fship", headers=TOKEN).json == {"data": [shipped]}
    assert ask(warehouse, "GET", "/shipments?key=unknown", headers=TOKEN).json == {"data": []}


def test_shipments_are_listed_page_by_page_with_their_keys(warehouse: Sandbox) -> None:
    ids = [ship(warehouse, key).json["id"] for key in ("a", "b", "c")]

    first = ask(warehouse, "GET", "/shipments?limit=2", headers=TOKEN).json
    rest = ask(warehouse, "GET", f"/shipments?limit=2&after={ids[1]}", headers=TOKEN).json
    assert [entry["id"] for entry in first["data"] + rest["data"]] == ids
    assert [entry["idempotency_key"] for entry in first["data"]] == ["a", "b"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    later = ask(warehouse, "GET", "/shipments?since=2100-01-01T00:00:00%2B00:00", headers=TOKEN).json
    assert later == {"data": [], "has_more": False}


UNREADABLE = ["limit=0", "limit=501", "limit=x", "since=yesterday", "since=2026-01-31", "after=x"]


@pytest.mark.parametrize("query", UNREADABLE)
def test_an_invalid_list_query_is_refused_with_a_sentence(warehouse: Sandbox, query: str) -> None:
    assert ask(warehouse, "GET", f"/shipments?{query}", headers=TOKEN).json["code"] == "bad_request"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic eDp5"}])
def test_shipping_requires_a_token(warehouse: Sandbox, headers: dict[str, str]) -> None:
    answer = ask(warehouse, "POST", "/shipments", shipment(), headers | {"Idempotency-Key": "key"})

    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("body", "about"),
    [
        (b"{", "JSON object"),
        ([], "JSON object"),
        (shipment(country="England"), "country"),
        (shipment(lines=[]), "lines"),
        (shipment(lines=["85123A"]), "line"),
        (shipment(lines=[{"sku": "", "quantity": 1}]), "sku"),
        (shipment(lines=[{"sku": "A", "quantity": 0}]), "quantity"),
        (shipment(lines=[{"sku": "A", "quantity": True}]), "quantity"),
        (shipment(order_id=1), "order_id"),
    ],
)
def test_an_invalid_shipment_is_refused_with_a_sentence(warehouse: Sandbox, body: object, about: str) -> None:
    answer = ship(warehouse, body=body)

    assert (answer.status, answer.json["code"]) == (400, "bad_request")
    assert about in answer.json["reason"]
    assert warehouse.ledger() == []


@pytest.mark.parametrize(("key", "code"), [(None, "key_missing"), ("k" * 256, "key_too_long")])
def test_a_shipment_needs_a_key(warehouse: Sandbox, key: str | None, code: str) -> None:
    answer = ship(warehouse, key)

    assert (answer.status, answer.json["code"]) == (400, code)
