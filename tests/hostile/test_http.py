"""
Whatever a client sends to an operation of the API, the response is documented, and no order is placed by
chance.

Operations, parameters and fields are read from the OpenAPI document, so that new ones are tested as well.
"""

from __future__ import annotations

import copy
import itertools
import json
import uuid
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from django.db import transaction

from orders.api import document
from orders.clients import tokens
from orders.models import IdempotencyRecord, Order
from outbox.models import OutboxMessage
from tests.factories import ProductFactory
from tests.hostile.requests import BODIES, CARDS, ODD, TEXTS, VALUES
from tests.orders.api.client import ApiClient, clear_limits, order_of
from tests.slow import but_first

PROBLEM = "application/problem+json"
SCHEMA = document.api.get_openapi_schema()
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in SCHEMA["paths"].items()
    for method, operation in methods.items()
}
WITH_BODY = sorted(name for name, (method, _, _) in OPERATIONS.items() if method in ("POST", "PUT", "PATCH"))
PARAMETERS = sorted(
    (name, parameter["in"], parameter["name"])
    for name, (_, _, operation) in OPERATIONS.items()
    for parameter in operation["parameters"]
)
ODDITIES = {what: TEXTS[what] for what in ODD}
HEADERS = {
    "Authorization": ODDITIES | {"no token": "Bearer", "two": "Bearer a, Bearer b", "basic": "Basic YTpi"},
    "Content-Type": {
        "two": "application/json, application/json",
        "a wildcard": "*/*",
        "long": "a/" + "b" * 2000,
    },
    "Content-Encoding": {"gzip": "gzip", "nothing": "", "many": "gzip," * 200},
    "Content-Length": {"negative": "-1", "huge": "9" * 5000, "superscript": "\u00b2", "hexadecimal": "0x1"},
    "If-None-Match": ODDITIES,
    "X-Request-ID": ODDITIES,
    "traceparent": ODDITIES,
    "X-Forwarded-For": ODDITIES,
    "Cookie": {"a NUL": 'sessionid="\\000aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"', "odd": "a=\xff; ;=; sessionid=x"},
    "Accept": ODDITIES,
    "Host": ODDITIES,
}
BY_ANY = {400, 404, 405, 413, 415}
"""Statuses that every operation may respond with, besides its own."""

NO_TEXT_OF_THEIR_OWN = {"sku", "phone"}
"""Fields that refer to existing objects, or are too short for a card number: see `orders.api.fields`."""


@pytest.fixture
def api(db, settings):
    clear_limits()
    settings.API_RATE_LIMIT = "100000/minute"
    settings.TRUSTED_PROXIES = 1
    ProductFactory(sku="MUG-01")
    return ApiClient(*tokens.SCOPES)


def leaves(schema: dict[str, Any], path: tuple = ()):
    """Return the fields of a body, including those in lists and objects, each as a path with its schema."""
    if "$ref" in schema:
        schema = SCHEMA["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for part in (*schema.get("allOf", ()), *schema.get("anyOf", ())):
        yield from leaves(part, path)
    for name, field in schema.get("properties", {}).items():
        yield (*path, name), field
        yield from leaves(field, (*path, name))
    if "items" in schema:
        yield (*path, 0), schema["items"]
        yield from leaves(schema["items"], (*path, 0))


def body_of(name: str) -> dict[str, Any] | None:
    content = OPERATIONS[name][2].get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("schema")


FIELDS = sorted(
    {(name, path) for name in OPERATIONS if (schema := body_of(name)) for path, _ in leaves(schema)}, key=str
)


def put(body: Any, path: tuple, value: Any) -> Any:
    """Return the body with another value at a path."""
    body = copy.deepcopy(body)
    at = body
    for step in path[:-1]:
        at = at[step] if not isinstance(at, dict) else at.setdefault(step, {})
    at[path[-1]] = value
    return body


class Edge:
    """Sends requests, and checks what holds for every response, whatever was sent."""

    def __init__(self, api: ApiClient) -> None:
        self.api = api
        self.order = Order.objects.get(number=api.place(order_of()).json()["number"])
        self.orders = Order.objects.count()

    def send(
        self, name: str, *, path: str = "", query: str = "", body: Any = None, headers: dict | None = None
    ):
        method, template, operation = OPERATIONS[name]
        address = template.replace("{order_id}", path or self.order.number)
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = self.api.headers | {"Idempotency-Key": str(uuid.uuid4())} | (headers or {})
        before = transaction.savepoint()
        response = self.api.http.generic(
            method,
            f"{address}?{query}" if query else address,
            data,
            content_type=given.pop("Content-Type", "application/json"),
            headers={name: value for name, value in given.items() if name != "Content-Length"},
            **({"CONTENT_LENGTH": given["Content-Length"]} if "Content-Length" in given else {}),
        )
        transaction.set_rollback(False)
        assert response.status_code < 500, (name, response.status_code, response.content[:500])
        if response.status_code >= 400:
            assert response["Content-Type"] == PROBLEM, response.content[:200]
            problem = response.json()
            assert problem["status"] == response.status_code
            assert str(response.status_code) in operation["responses"] or response.status_code in BY_ANY
        else:
            assert str(response.status_code) in operation["responses"]
        self.placed = Order.objects.count() - self.orders
        transaction.savepoint_rollback(before)
        return response


@pytest.fixture
def edge(api) -> Edge:
    return Edge(api)


@pytest.mark.parametrize("name", WITH_BODY)
def test_a_body_that_is_no_order_is_refused_and_places_none(edge, name):
    for what, (body, statuses) in BODIES.items():
        response = edge.send(name, body=body)
        if body_of(name):
            assert response.status_code in statuses, (what, response.content)
        else:
            assert response.status_code == 202 or response.status_code in statuses, (what, response.content)
        assert edge.placed == 0, what


@pytest.mark.parametrize(("name", "path"), but_first(FIELDS, first=4), ids=str)
def test_no_value_of_a_field_fails(edge, name, path):
    for what, value in VALUES.items():
        response = edge.send(name, body=put(order_of(), path, value))
        assert response.status_code in (201, 422), (what, response.content)
        assert edge.placed == (response.status_code == 201), what
        if response.status_code == 201:
            again = edge.send(name, body=put(order_of(), path, value))
            assert again.status_code == 201, what


def text_fields():
    for name, path in FIELDS:
        schema = dict(leaves(body_of(name)))[path]
        options = schema.get("anyOf", [schema])
        if any(option.get("type") == "string" for option in options) and path[-1] not in NO_TEXT_OF_THEIR_OWN:
            yield name, path, schema


@pytest.mark.parametrize(("name", "path"), [(name, path) for name, path, _ in text_fields()], ids=str)
def test_no_card_number_is_accepted_in_any_text(edge, name, path):
    for what, number in CARDS.items():
        response = edge.send(name, body=put(order_of(), path, number))
        assert response.status_code == 422, (what, response.content)
        assert number not in response.content.decode()
        assert edge.placed == 0


@pytest.mark.parametrize("what", CARDS)
def test_no_card_number_is_accepted_as_a_key(edge, what):
    for key in (CARDS[what], f'"{CARDS[what]}"'):
        response = edge.send("place_order", body=order_of(), headers={"Idempotency-Key": key})
        assert response.status_code in (400, 422), response.content
        assert edge.placed == 0
    assert not IdempotencyRecord.objects.filter(key__contains="4242").exists()


@pytest.mark.parametrize("what", CARDS)
def test_no_card_number_is_kept_as_a_request_id(edge, what):
    response = edge.send("place_order", body=order_of(), headers={"X-Request-ID": CARDS[what]})

    assert response["X-Request-ID"] != CARDS[what]
    assert not OutboxMessage.objects.filter(correlation_id=CARDS[what]).exists()


INVISIBLE = ["NUL", "controls", "a line break", "C1", "a line separator", "right to left", "isolates"]
INVISIBLE += ["zero-width", "a byte order mark", "a tag", "no character", "half a character"]


@pytest.mark.parametrize(("name", "path"), [(name, path) for name, path, _ in text_fields()], ids=str)
def test_texts_with_invisible_characters_are_refused(edge, name, path):
    for what in INVISIBLE:
        response = edge.send(name, body=put(order_of(), path, TEXTS[what]))
        assert response.status_code == 422, (what, response.content)


@pytest.mark.parametrize("name", ["Zoë Müller-Lüdenscheidt", "علی\u200cرضا", "क्\u200dष", "李小龍", "O'Neil"])
def test_names_of_people_are_accepted(edge, name):
    assert edge.send("place_order", body=order_of(customer={"name": name})).status_code == 201


def test_every_text_field_has_its_rules_in_the_document():
    for _, path, schema in text_fields():
        options = [schema, *schema.get("anyOf", [])]
        assert any("pattern" in option for option in options), path


@pytest.mark.parametrize(("name", "where", "parameter"), but_first(PARAMETERS, first=3), ids=str)
def test_no_value_of_a_parameter_fails(edge, name, where, parameter):
    for what, text in TEXTS.items():
        if where == "header":
            sent = text.encode("utf-8", "surrogatepass").decode("latin-1").replace("\r", "").replace("\n", "")
            response = edge.send(name, body=order_of(), headers={parameter: sent.replace("\x00", "")})
        elif where == "path":
            response = edge.send(name, path=quote(text, safe="", errors="surrogatepass") or "x")
        else:
            response = edge.send(name, query=f"{parameter}={quote_plus(text, errors='surrogatepass')}")
        assert response.status_code < 500, what


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("query", ["%00=1", "%FF=%FF", "limit=1&limit=2", "&&;=&", "a" * 4000, "__proto__=1"])
def test_no_query_fails(edge, name, query):
    edge.send(name, query=query)


@pytest.mark.parametrize("header", but_first(HEADERS, first=2))
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_header_fails(edge, name, header):
    body = order_of() if body_of(name) else None
    for text in HEADERS[header].values():
        sent = text.encode("utf-8", "surrogatepass").decode("latin-1")
        edge.send(name, body=body, headers={header: "".join(c for c in sent if c.isprintable())})


@pytest.mark.parametrize("name", OPERATIONS)
def test_other_methods_are_refused(edge, name):
    _, template, _ = OPERATIONS[name]
    there = {method for method, path, _ in OPERATIONS.values() if path == template}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} - there:
        address = template.replace("{order_id}", edge.order.number)
        response = edge.api.http.generic(method, address, headers=edge.api.headers)
        assert (response.status_code, response["Content-Type"]) == (405, PROBLEM)


def test_the_corpus_reaches_every_field_of_an_order():
    """If no field were found, all the other tests would pass."""
    found = {path for _, path in FIELDS}
    wanted = {("items",), ("items", 0), ("items", 0, "sku"), ("items", 0, "quantity"), ("customer", "name")}
    wanted |= {("customer", "email"), ("customer", "push_token"), ("country",), ("client_reference",)}

    assert wanted <= found
    assert len(list(itertools.chain(PARAMETERS))) >= 8
