"""Placing, reading and cancelling orders over HTTP."""

from __future__ import annotations

import base64
import collections
import concurrent.futures
import contextlib
import datetime as dt
import json
import threading
import time
import uuid
from typing import Any

import pytest
import redis
from django.conf import settings as project_settings
from django.db import connection
from django.test import Client

from orders import moves, services, tokens, transitions
from orders.api import door
from orders.models import Order, Payment, Product
from outbox import context
from outbox.models import OutboxMessage
from tests.factories import ProductFactory, place

ORDERS = "/api/v1/orders"


class ApiClient:
    """A client with a token; `problem` is for answers that must be one."""

    def __init__(self, *scopes: str, name: str = "") -> None:
        self.token, self.secret = tokens.create(
            name or f"shop-{uuid.uuid4().hex[:8]}", scopes=scopes or tokens.SCOPES
        )
        self.http = Client(raise_request_exception=False)
        self.headers = {"Authorization": f"Bearer {self.secret}"}

    def get(self, path: str, query: dict | None = None, **headers: str):
        return self.http.get(path, query or {}, headers=self.headers | headers)

    def post(self, path: str, body: Any = None, *, key: str | None = None, **headers: str):
        data = body if isinstance(body, bytes) else json.dumps(body) if body is not None else ""
        keyed = {"Idempotency-Key": key} if key is not None else {}
        return self.http.post(
            path, data, content_type="application/json", headers=self.headers | keyed | headers
        )

    def place(self, body: Any, *, key: str | None = None):
        return self.post(ORDERS, body, key=key or str(uuid.uuid4()))


def clear_limits() -> None:
    if project_settings.REDIS_URL:
        with contextlib.closing(redis.Redis.from_url(project_settings.REDIS_URL)) as shared:
            if names := list(shared.scan_iter("api-limits*")):
                shared.delete(*names)


@pytest.fixture(autouse=True)
def _fresh_limits():
    clear_limits()


@pytest.fixture
def api(db) -> ApiClient:
    return ApiClient()


@pytest.fixture
def mug(db) -> Product:
    return ProductFactory(sku="MUG-01", name="Mug", price_minor=250)


def order_of(*skus: str, **changed: Any) -> dict[str, Any]:
    body = {
        "items": [{"sku": sku, "quantity": 2} for sku in skus or ["MUG-01"]],
        "currency": "GBP",
        "payment_method": "pm_card_visa",
        "customer": {"name": "Ada Example", "email": "ada@example.com", "phone": "+447700900123"},
        "country": "GB",
        "client_reference": "cart-1",
    }
    return {name: value for name, value in (body | changed).items() if value is not ...}


def assert_problem(response, status: int, code: str) -> dict[str, Any]:
    assert response["Content-Type"] == "application/problem+json", response.content
    problem = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert problem["type"] == f"/api/v1/problems/{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"].startswith("/")
    assert problem["request_id"] == response["X-Request-ID"]
    assert "Traceback" not in response.content.decode()
    return problem


def pointers(problem: dict[str, Any]) -> list[str]:
    return sorted(error["pointer"] for error in problem["errors"])


# Placing ----------------------------------------------------------------------------------------------


def test_a_placed_order_is_stored_with_its_event_and_can_be_found_at_its_location(api, mug):
    response = api.place(order_of())

    assert response.status_code == 201
    placed = response.json()
    order = Order.objects.get(pk=placed["id"])
    assert placed == {
        "id": str(order.pk),
        "number": order.number,
        "status": "placed",
        "currency": "GBP",
        "total_minor": 500,
        "lines": [{"sku": "MUG-01", "name": "Mug", "quantity": 2, "unit_price_minor": 250, "total_minor": 500}],
        "client_reference": "cart-1",
        "placed_at": order.placed_at.isoformat().replace("+00:00", "Z"),
        "links": {"self": f"{ORDERS}/{order.pk}", "cancel": f"{ORDERS}/{order.pk}/cancel"},
    }
    assert response["Location"] == f"{ORDERS}/{order.pk}"
    assert "Idempotent-Replayed" not in response
    assert api.get(response["Location"]).status_code == 200
    assert (order.customer_email, order.customer_phone, order.country) == (
        "ada@example.com",
        "+447700900123",
        "GB",
    )
    assert OutboxMessage.objects.get(key=order.pk).event_name == "orders.order_placed"
    assert order.transitions.get().actor == f"api:{api.token.name}"


def test_the_clients_request_id_goes_with_the_order(api, mug):
    api.post(ORDERS, order_of(), key="k", **{"X-Request-ID": "req-7"})

    assert Order.objects.get().correlation_id == "req-7"


def test_the_same_key_and_body_get_the_first_answer_again(api, mug):
    first = api.place(order_of(), key="once")
    Order.objects.update(status=moves.Status.VALIDATED)
    again = api.place(order_of(), key="once")

    assert again.status_code == 201
    assert again.content == first.content
    assert again["Location"] == first["Location"]
    assert again["Idempotent-Replayed"] == "true"
    assert Order.objects.count() == 1


def test_a_key_means_the_same_bare_and_quoted(api, mug):
    first = api.place(order_of(), key='a-"b')
    again = api.place(order_of(), key='"a-\\"b"')

    assert again.content == first.content


def test_the_same_key_with_another_body_is_refused(api, mug):
    api.place(order_of(), key="once")

    assert_problem(api.place(order_of(currency="EUR"), key="once"), 422, "idempotency-key-reused")


def test_keys_belong_to_their_client(api, mug, db):
    api.place(order_of(), key="once")
    response = ApiClient().place(order_of(currency="GBP"), key="once")

    assert response.status_code == 201
    assert Order.objects.count() == 2


def test_rotating_a_token_keeps_its_keys(api, mug):
    first = api.place(order_of(), key="once")
    api.headers["Authorization"] = f"Bearer {tokens.rotate(api.token.name)}"

    assert api.place(order_of(), key="once").content == first.content


def test_an_order_without_a_key_is_refused(api, mug):
    assert_problem(api.post(ORDERS, order_of()), 400, "idempotency-key-missing")


@pytest.mark.parametrize("key", ["", "two words", "ümlaut", "x" * 256, '"open', '""', '"a"b"', "tab\there"])
def test_a_malformed_key_is_refused(api, mug, key):
    assert_problem(api.post(ORDERS, order_of(), key=key), 400, "idempotency-key-malformed")


def test_a_request_in_flight_keeps_its_key(transactional_db):
    ProductFactory(sku="MUG-01")
    api = ApiClient()
    with contextlib.ExitStack() as held:
        other = connection.copy()
        held.callback(other.close)
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"api:{api.token.pk}\x1fonce"])
        response = api.place(order_of(), key="once")

    assert_problem(response, 409, "idempotency-key-in-use")
    assert response["Retry-After"] == "1"
    assert api.place(order_of(), key="once").status_code == 201


def test_fifty_requests_at_once_with_one_key_place_one_order(transactional_db):
    ProductFactory(sku="MUG-01")
    api = ApiClient()
    start = threading.Barrier(50)

    def ask(_):
        try:
            start.wait(timeout=30)
            for _ in range(100):
                response = api.place(order_of(), key="once")
                if response.status_code != 409:
                    return response.status_code, response.content, response["Location"]
                time.sleep(0.02)
        finally:
            connection.close()

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = collections.Counter(pool.map(ask, range(50)))

    [(status, _, _)] = answers
    assert status == 201
    assert Order.objects.count() == 1
    assert OutboxMessage.objects.count() == 1


def test_orders_are_taken_while_the_broker_is_down(api, mug, no_broker):
    began = time.monotonic()
    response = api.place(order_of())

    assert response.status_code == 201
    assert time.monotonic() - began < 1
    assert OutboxMessage.objects.undelivered().count() == 1


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"items": []}, "/items"),
        ({"items": ...}, "/items"),
        ({"items": [{"sku": "MUG-01", "quantity": 1}] * 501}, "/items"),
        ({"items": [{"sku": "MUG-01", "quantity": 0}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG-01", "quantity": 1_000_001}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG-01", "quantity": "2"}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG-01", "quantity": True}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG-01", "quantity": 1e300}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG-01", "quantity": 1.5}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG-01", "quantity": float("inf")}]}, "/items/0/quantity"),
        ({"items": [{"sku": "MUG\x00", "quantity": 1}]}, "/items/0/sku"),
        ({"items": [{"sku": "\ud800", "quantity": 1}]}, "/items/0/sku"),
        ({"items": [{"sku": "MUG-01", "quantity": 1, "price": 1}]}, "/items/0/price"),
        ({"currency": "gbp"}, "/currency"),
        ({"payment_method": ...}, "/payment_method"),
        ({"payment_method": "pm card"}, "/payment_method"),
        ({"customer": {"name": "Ada\nBcc: all"}}, "/customer/name"),
        ({"customer": {"email": "nobody"}}, "/customer/email"),
        ({"customer": {"phone": "0770 900123"}}, "/customer/phone"),
        ({"customer": {"push_token": "a b"}}, "/customer/push_token"),
        ({"customer": {"e-mail/~": "x"}}, "/customer/e-mail~1~0"),
        ({"customer": None}, "/customer"),
        ({"country": "United Kingdom"}, "/country"),
        ({"client_reference": "\x00"}, "/client_reference"),
        ({"client_reference": "x" * 101}, "/client_reference"),
        ({"discount": 5}, "/discount"),
        ({"\ud800": 5}, ""),
    ],
)
def test_what_breaks_the_rules_is_pointed_at_and_not_stored(api, mug, changed, pointer):
    problem = assert_problem(api.place(order_of(**changed)), 422, "validation-failed")

    assert pointers(problem) == [pointer]
    assert not Order.objects.exists()


def test_a_whole_number_may_be_written_with_a_point(api, mug):
    placed = api.place(order_of(items=[{"sku": "MUG-01", "quantity": 2.0}]))

    assert placed.json()["lines"][0]["quantity"] == 2


def test_every_mistake_is_pointed_at_at_once(api, mug):
    problem = assert_problem(api.place(order_of(currency="x", country="x")), 422, "validation-failed")

    assert pointers(problem) == ["/country", "/currency"]


@pytest.mark.parametrize(
    "number", ["4242424242424242", "4242 4242 4242 4242", "3782-822463-10005", "pm_4242424242424242"]
)
def test_card_numbers_are_refused_and_not_repeated(api, mug, number):
    response = api.place(order_of(payment_method=number))

    problem = assert_problem(response, 422, "card-number")
    assert pointers(problem) == ["/payment_method"]
    assert number not in response.content.decode()


def test_unknown_products_are_pointed_at_and_the_key_stays_free(api, mug):
    problem = assert_problem(api.place(order_of("MUG-01", "NONE"), key="once"), 422, "unknown-product")
    assert pointers(problem) == ["/items/1/sku"]

    assert api.place(order_of(), key="once").status_code == 201


def test_products_in_another_currency_are_refused(api, mug):
    assert_problem(api.place(order_of(currency="EUR")), 422, "mixed-currencies")


def test_a_total_beyond_what_can_be_stored_is_refused(api, db):
    ProductFactory(sku="MUG-01", price_minor=2**62)

    assert_problem(api.place(order_of()), 422, "total-too-large")
    assert not Order.objects.exists()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1", b"\xff\xfe", b"[" * 30_000, b'{"items": ' + b"9" * 5000 + b"}", b"\x00"]
)
def test_what_is_no_json_is_refused(api, db, body):
    response = api.post(ORDERS, body, key="k")

    assert response.status_code in (400, 422)
    assert response["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"1", b"true", b"NaN"])
def test_json_that_is_no_order_is_refused(api, db, body):
    assert_problem(api.post(ORDERS, body, key="k"), 422, "validation-failed")


def test_a_large_body_is_refused_before_it_is_read(api, db):
    body = json.dumps(order_of(client_reference="x" * 65_536)).encode()

    assert_problem(api.post(ORDERS, body, key="k"), 413, "body-too-large")


def test_only_json_is_taken(api, db):
    response = api.http.post(ORDERS, {"a": "b"}, headers=api.headers | {"Idempotency-Key": "k"})

    assert_problem(response, 415, "unsupported-media-type")


# Reading ----------------------------------------------------------------------------------------------


def move(order: Order, *statuses: moves.Status, **changes: Any) -> None:
    with context.bind(context.Context(correlation_id="c", task="orders.tasks.step")):
        for status in statuses:
            transitions.move(order, to=status, **changes)


def test_an_order_tells_where_it_stands_and_how_it_got_there(api, db):
    order = place()
    move(order, moves.Status.VALIDATED, moves.Status.CHARGED)
    Payment.objects.create(
        order=order, idempotency_key="p", amount_minor=500, currency="GBP", status=Payment.Status.SUCCEEDED
    )
    response = api.get(f"{ORDERS}/{order.number.lower()}")

    shown = response.json()
    assert response.status_code == 200
    assert (shown["id"], shown["status"], shown["reason"]) == (str(order.pk), "charged", "")
    assert [(step["from"], step["to"]) for step in shown["timeline"]] == [
        (None, "placed"),
        ("placed", "validated"),
        ("validated", "charged"),
    ]
    [payment] = shown["payments"]
    assert (payment["status"], payment["amount_minor"], payment["refund"]) == ("succeeded", 500, None)
    assert shown["shipment"] is None
    assert response["Retry-After"] == "1"
    assert "example.com" not in response.content.decode()


def test_a_final_order_says_why_and_need_not_be_asked_for_again(api, db):
    order = place()
    move(order, moves.Status.REJECTED, reason="not in stock: MUG-01")
    response = api.get(f"{ORDERS}/{order.pk}")

    assert response.json()["reason"] == "not in stock: MUG-01"
    assert response.json()["finished_at"]
    assert "Retry-After" not in response


def test_an_unchanged_order_is_not_sent_again(api, db):
    order = place()
    first = api.get(f"{ORDERS}/{order.pk}")
    unchanged = api.get(f"{ORDERS}/{order.pk}", **{"If-None-Match": f'"other", W/{first["ETag"]}'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged["ETag"] == first["ETag"]
    assert unchanged["Retry-After"] == "1"


@pytest.mark.parametrize(
    "change",
    [
        lambda order: move(order, moves.Status.VALIDATED),
        lambda order: services.request_cancellation(order_id=order.pk, requested_by="customer"),
        lambda order: order.payments.create(idempotency_key="p", amount_minor=1, currency="GBP"),
    ],
)
def test_every_change_changes_the_etag(api, db, change):
    order = place()
    before = api.get(f"{ORDERS}/{order.pk}")["ETag"]
    change(order)

    assert api.get(f"{ORDERS}/{order.pk}", **{"If-None-Match": before}).status_code == 200


@pytest.mark.parametrize(
    "reference", ["OF-1", str(uuid.UUID(int=0)), "x", "OF-x", "%00", "{}", "OF-٣", "OF-" + "9" * 30]
)
def test_an_unknown_order_is_not_found(api, db, reference):
    assert_problem(api.get(f"{ORDERS}/{reference}"), 404, "not-found")
    assert_problem(api.post(f"{ORDERS}/{reference}/cancel"), 404, "not-found")


def numbers(response) -> list[str]:
    return [order["number"] for order in response.json()["items"]]


def test_pages_stay_put_while_orders_come_in(api, db):
    product = ProductFactory()
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    expected = [place(product, placed_at=moment).number for _ in range(7)]
    seen, query = [], {"limit": "3"}
    for _ in range(3):
        response = api.get(ORDERS, query)
        seen += numbers(response)
        query["cursor"] = response.json()["next_cursor"]
        place(product)

    assert query["cursor"] is None
    assert sorted(seen) == sorted(expected)


def test_orders_come_newest_first_and_can_be_filtered(api, db):
    product = ProductFactory()
    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    old = place(product, placed_at=day, client_reference="cart-1")
    new = place(
        product, placed_at=day + dt.timedelta(days=1), contact=services.Contact(email="bob@example.com")
    )
    move(new, moves.Status.REJECTED)

    assert numbers(api.get(ORDERS)) == [new.number, old.number]
    assert numbers(api.get(ORDERS, {"status": "rejected"})) == [new.number]
    assert numbers(api.get(ORDERS, {"client_reference": "cart-1"})) == [old.number]
    assert numbers(api.get(ORDERS, {"email": "bob@example.com"})) == [new.number]
    assert numbers(api.get(ORDERS, {"placed_after": "2026-01-01T12:00:00Z"})) == [new.number]
    assert numbers(api.get(ORDERS, {"placed_before": "2026-01-01T13:00:00+01:00"})) == [old.number]


def cursor(moment: str) -> str:
    return base64.urlsafe_b64encode(f"{moment}|{uuid.UUID(int=0)}".encode()).decode()


def test_times_may_have_any_offset(api, db):
    assert api.get(ORDERS, {"placed_after": "1525-12-19T14:58:17.5-17:15"}).status_code == 200
    assert api.get(ORDERS, {"cursor": cursor("2026-01-01T00:00:00-17:15")}).status_code == 200


def test_a_page_takes_few_queries_however_many_orders_it_has(api, db, django_assert_max_num_queries):
    product = ProductFactory()
    for _ in range(10):
        place(product)
    api.get(ORDERS)

    with django_assert_max_num_queries(4):
        assert len(numbers(api.get(ORDERS))) == 10


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"limit": "101"}, "limit"),
        ({"limit": "0"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"status": "lost"}, "status"),
        ({"stauts": "placed"}, "stauts"),
        ({"status": ["placed", "rejected"]}, "status"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "MjAyNi0wMS0wMXx4"}, "cursor"),
        ({"cursor": "ü"}, "cursor"),
        ({"placed_after": "2026-01-01"}, "placed_after"),
        ({"placed_after": "2026-01-01T00:00:00"}, "placed_after"),
        ({"placed_after": "0"}, "placed_after"),
        ({"placed_after": "0001-01-01T00:00:00+23:59"}, "placed_after"),
        ({"cursor": cursor("0001-01-01T00:00:00+23:59")}, "cursor"),
        ({"client_reference": "\x00"}, "client_reference"),
        ({"email": "\x00"}, "email"),
    ],
)
def test_filters_that_cannot_be_meant_are_refused(api, db, query, pointer):
    assert pointers(assert_problem(api.get(ORDERS, query), 422, "validation-failed")) == [pointer]


# Cancelling -------------------------------------------------------------------------------------------


def test_cancelling_is_asked_for_once_however_often_it_is_asked(api, db):
    order = place()
    first = api.post(f"{ORDERS}/{order.number}/cancel")
    again = api.post(f"{ORDERS}/{order.pk}/cancel")

    assert first.status_code == again.status_code == 202
    assert first.content == again.content
    assert first["Location"] == f"{ORDERS}/{order.pk}"
    assert first.json()["cancel_requested_at"]
    message = OutboxMessage.objects.get(key=order.pk, event_name="orders.cancellation_requested")
    assert message.payload["requested_by"] == f"api:{api.token.name}"


def test_an_order_that_has_ended_cannot_be_cancelled(api, db):
    order = place()
    move(order, moves.Status.REJECTED)

    problem = assert_problem(api.post(f"{ORDERS}/{order.pk}/cancel"), 409, "not-cancellable")
    assert "rejected" in problem["detail"]


# Errors in general ------------------------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/orders/", "/api/v2/x"]
)
def test_addresses_that_lead_nowhere_are_a_problem(api, settings, debug, path):
    settings.DEBUG = debug

    assert_problem(api.get(path), 404, "not-found")
    assert_problem(api.post(path, {}), 404, "not-found")


def test_a_method_that_is_not_there_is_a_problem(api, db):
    response = api.http.delete(ORDERS, headers=api.headers)

    assert_problem(response, 405, "method-not-allowed")
    assert response["Allow"] == "GET, POST"


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_that_nobody_foresaw_says_nothing_about_the_inside(api, settings, monkeypatch, debug):
    settings.DEBUG = debug

    def fail(**_):
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(services, "place_order", fail)
    response = api.place(order_of())

    assert_problem(response, 500, "internal-error")
    assert "inside" not in response.content.decode()


def test_a_database_that_is_away_is_a_problem_that_passes(api, monkeypatch):
    from django.db import OperationalError

    def fail(**_):
        raise OperationalError("connection refused")

    monkeypatch.setattr(services, "place_order", fail)
    response = api.place(order_of())

    assert_problem(response, 503, "unavailable")
    assert response["Retry-After"] == "2"


def test_a_problem_names_the_trace_it_belongs_to(api, db):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    response = api.get(f"{ORDERS}/x", traceparent=f"00-{trace}-00f067aa0ba902b7-01")

    assert response.json()["trace_id"] == trace


def test_the_type_of_a_problem_leads_to_what_it_means(api, client, db):
    problem = api.get(f"{ORDERS}/x").json()

    assert "There is no such thing" in client.get(problem["type"]).content.decode()
    assert_problem(client.get("/api/v1/problems/nothing"), 404, "not-found")


def test_the_limit_of_bodies_is_as_documented():
    assert door.LARGEST_BODY == 64 * 1024
