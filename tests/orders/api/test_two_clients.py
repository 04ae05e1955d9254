"""
No operation of the OpenAPI document gives a client access to what belongs to another client.

A new operation is tested without being named here. One with a parameter that is unknown here
fails until `known` has a value that another client would send.
"""

from __future__ import annotations

import itertools
import json
import uuid
from typing import Any

import pytest

from orders import services
from orders.api import document
from orders.clients import tokens
from orders.models import IdempotencyRecord, Order, OrderTransition
from outbox.models import OutboxMessage
from tests.factories import ProductFactory, place
from tests.orders.api.client import ORDERS, ApiClient, assert_problem, numbers, order_of

OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in document.api.get_openapi_schema()["paths"].items()
    for method, operation in operations.items()
]
NAMES = [f"{method} {path}" for method, path, _ in OPERATIONS]
every_operation = pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)

EMAIL = "grace@victim.example"


class Victim:
    """A client with an order; the identifiers of that order, and what another client would find it by."""

    def __init__(self) -> None:
        self.api = ApiClient()
        ProductFactory(sku="MUG-01")
        self.body = order_of(
            customer={"name": "Grace Victim", "email": EMAIL, "phone": "+447700900999"},
            client_reference="cart-of-victim",
        )
        answer = self.api.place(self.body, key="the-victims-key")
        assert answer.status_code == 201
        self.order = Order.objects.get()
        place(client_id=self.api.client_id, contact=services.Contact(email=EMAIL))
        self.cursor = self.api.get(ORDERS, {"limit": "1"}).json()["next_cursor"]
        assert self.cursor

    @property
    def marks(self) -> list[str]:
        """The texts that a response to another client must not contain."""
        found = [[str(o.pk), o.number, str(o.message_id)] for o in Order.objects.of_client(self.api.client_id)]
        return [*itertools.chain(*found), EMAIL, "Grace Victim", "cart-of-victim", "+447700900999"]

    def known(self, name: str) -> list[str]:
        """What another client, who knows all of it, writes into a parameter."""
        order = self.order
        return {
            "order_id": [str(order.pk), order.number, order.number.lower()],
            "status": [str(order.status)],
            "client_reference": [order.client_reference],
            "email": [order.customer_email],
            "placed_after": ["2020-01-01T00:00:00Z"],
            "placed_before": ["2100-01-01T00:00:00Z"],
            "limit": ["100"],
            "cursor": [self.cursor],
            "Idempotency-Key": ["the-victims-key"],
        }[name]

    def everything(self) -> Any:
        """All data of the client's orders in the database."""
        mine = Order.objects.of_client(self.api.client_id)
        ids = [str(pk) for pk in mine.values_list("pk", flat=True)]
        return [
            list(mine.order_by("pk").values()),
            list(OrderTransition.objects.filter(order__in=mine).order_by("pk").values()),
            list(OutboxMessage.objects.filter(key__in=ids).order_by("pk").values()),
            list(IdempotencyRecord.objects.filter(order__in=mine).order_by("pk").values()),
        ]


@pytest.fixture
def victim(db) -> Victim:
    return Victim()


def requests(victim: Victim, operation: dict[str, Any], path: str):
    """The operation with every combination of known values: as path, query, headers and body."""
    parameters = operation["parameters"]
    always = [each for each in parameters if each.get("required")]
    optional = [each for each in parameters if not each.get("required")]
    choices = [*([each] for each in optional), optional, []]
    for chosen in choices:
        given = [*always, *chosen]
        for values in itertools.product(*(victim.known(each["name"]) for each in given)):
            filled, query, headers = path, {}, {}
            for parameter, value in zip(given, values, strict=True):
                match parameter["in"]:
                    case "path":
                        filled = filled.replace("{" + parameter["name"] + "}", value)
                    case "query":
                        query[parameter["name"]] = value
                    case "header":
                        headers[parameter["name"]] = value
            yield filled, query, headers


def send(api: ApiClient, method: str, path: str, query: dict, headers: dict, body: Any):
    return api.http.generic(
        method,
        path,
        json.dumps(body) if body is not None else "",
        content_type="application/json",
        query_params=query,
        headers=api.headers | headers,
    )


def body_of(victim: Victim, operation: dict[str, Any]) -> Any:
    return victim.body if "requestBody" in operation else None


def is_about_an_order(operation: dict[str, Any]) -> bool:
    return any(parameter["in"] == "path" for parameter in operation["parameters"])


@every_operation
def test_no_operation_shows_or_changes_another_clients_data(victim, method, path, operation):
    other, before = ApiClient(*tokens.ORDINARY), victim.everything()
    for filled, query, headers in requests(victim, operation, path):
        response = send(other, method, filled, query, headers, body_of(victim, operation))

        assert response.status_code < 500
        content = response.content.decode() + str(response.headers)
        words = [filled, *query.values(), *headers.values(), json.dumps(body_of(victim, operation))]
        leaks = [mark for mark in victim.marks if mark in content and not any(mark in word for word in words)]
        assert leaks == [], (filled, query)
        if is_about_an_order(operation):
            assert response.status_code == 404, filled
        elif method == "GET":
            assert response.json()["items"] == [], query
    assert victim.everything() == before


@every_operation
def test_another_clients_order_gives_the_same_response_as_a_missing_one(victim, method, path, operation):
    if not is_about_an_order(operation):
        pytest.skip("the operation names no order")
    other = ApiClient(*tokens.ORDINARY)

    def answer(reference: str):
        response = send(
            other, method, path.replace("{order_id}", reference), {}, {}, body_of(victim, operation)
        )
        kept = {name: value for name, value in response.headers.items() if name != "X-Request-ID"}
        body = response.content.decode().replace(reference, "…").replace(response["X-Request-ID"], "…")
        kept.pop("Content-Length", None)
        return response.status_code, kept, body

    assert answer(victim.order.number) == answer("OF-99999999")
    assert answer(str(victim.order.pk)) == answer(str(uuid.uuid4()))


@every_operation
def test_the_owner_gets_an_answer_to_the_same_requests(victim, method, path, operation):
    for filled, query, headers in requests(victim, operation, path):
        response = send(victim.api, method, filled, query, headers, body_of(victim, operation))
        assert response.status_code < 300, (filled, query, response.content)


@every_operation
def test_every_operation_needs_a_scope_of_those_that_are_documented(victim, method, path, operation):
    nothing = ApiClient("orders:read")
    nothing.token.scopes = []
    nothing.token.save()
    for filled, query, headers in requests(victim, operation, path):
        response = send(nothing, method, filled, query, headers, body_of(victim, operation))
        assert_problem(response, 403, "missing-scope")


@every_operation
def test_an_order_without_a_client_is_visible_to_no_client(victim, method, path, operation):
    nobodys = place()
    if not is_about_an_order(operation):
        pytest.skip("the operation names no order")
    path = path.replace("{order_id}", nobodys.number)

    assert send(victim.api, method, path, {}, {}, body_of(victim, operation)).status_code == 404


def test_the_same_key_is_another_order_for_another_client(victim):
    other = ApiClient()
    mine = other.place(victim.body, key="the-victims-key")

    assert mine.status_code == 201
    assert "Idempotent-Replayed" not in mine
    assert mine.json()["id"] != str(victim.order.pk)
    assert Order.objects.get(pk=mine.json()["id"]).client_id == other.client_id


def test_the_scope_to_read_all_orders_does_not_allow_cancelling_them(victim):
    nobodys = place()
    auditor = ApiClient(tokens.READ_ALL, tokens.CANCEL, tokens.WRITE)

    assert {nobodys.number, victim.order.number} <= set(numbers(auditor.get(ORDERS)))
    assert numbers(auditor.get(ORDERS, {"client_reference": "cart-of-victim"})) == [victim.order.number]
    assert auditor.get(f"{ORDERS}/{victim.order.number}").json()["number"] == victim.order.number
    for order in (nobodys, victim.order):
        assert_problem(auditor.post(f"{ORDERS}/{order.number}/cancel"), 404, "not-found")
        order.refresh_from_db()
        assert order.cancel_requested_at is None


def test_all_tokens_of_a_client_have_its_orders_keys_and_rate(victim, settings):
    name = victim.api.token.client.name
    second = ApiClient(*tokens.ORDINARY, name="the second token", client=name)
    again = second.place(victim.body, key="the-victims-key")

    assert second.client_id == victim.api.client_id
    assert again.json()["id"] == str(victim.order.pk)
    assert again["Idempotent-Replayed"] == "true"
    assert victim.order.number in numbers(second.get(ORDERS))
    assert second.post(f"{ORDERS}/{victim.order.number}/cancel").status_code == 202

    settings.API_RATE_LIMIT = "3/minute"
    assert [api.get(ORDERS).status_code for api in (victim.api, second) * 2] == [200, 200, 200, 429]
    assert ApiClient().get(ORDERS).status_code == 200


def test_cancelling_needs_a_scope_of_its_own(victim):
    writer = ApiClient(tokens.READ, tokens.WRITE, name="no cancel", client=victim.api.token.client.name)
    problem = assert_problem(writer.post(f"{ORDERS}/{victim.order.number}/cancel"), 403, "missing-scope")

    assert "orders:cancel" in problem["detail"]
