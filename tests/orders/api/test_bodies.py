"""Bodies that are too large, not JSON, or JSON but not an order."""

from __future__ import annotations

import gzip
import json

import pytest

from orders.api import bodies
from orders.models import Order
from tests.orders.api.client import ORDERS, assert_problem, order_of, pointers


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1", b"\xff\xfe", b"[" * 30_000, b'{"items": ' + b"9" * 5000 + b"}", b"\x00"]
)
def test_invalid_json_is_refused(api, db, body):
    response = api.post(ORDERS, body, key="k")

    assert response.status_code in (400, 422)
    assert response["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"1", b"true"])
def test_json_that_is_no_order_is_refused(api, db, body):
    assert_problem(api.post(ORDERS, body, key="k"), 422, "validation-failed")


def test_a_large_body_is_refused_before_it_is_read(api, db):
    body = json.dumps(order_of(client_reference="x" * 65_536)).encode()

    assert_problem(api.post(ORDERS, body, key="k"), 413, "body-too-large")


def test_only_json_is_accepted(api, db):
    response = api.http.post(ORDERS, {"a": "b"}, headers=api.headers | {"Idempotency-Key": "k"})

    assert_problem(response, 415, "unsupported-media-type")


def test_the_limit_of_bodies_is_as_documented():
    assert bodies.LARGEST_BODY == 64 * 1024


@pytest.mark.parametrize(
    "twice",
    [
        (b'"quantity": 2', b'"quantity": 2, "quantity": 3'),
        (b'"quantity": 2', b'"quantity": 2, "quantity": 2'),
        (b'"quantity": 2', b'"quantity": 2, "qu\\u0061ntity": 2'),
        (b'"currency"', b'"currency": "GBP", "currency"'),
        (b'"name"', b'"name": "Grace", "name"'),
        (b'"client_reference"', b'"unknown": {"a": [{"b": 1, "b": 1}]}, "client_reference"'),
    ],
)
def test_a_duplicate_name_is_refused_at_any_depth(api, mug, twice):
    body = json.dumps(order_of()).encode()
    assert twice[0] in body

    problem = assert_problem(api.place(body.replace(*twice)), 400, "malformed-request")
    assert "duplicate name" in problem["detail"]
    assert not Order.objects.exists()


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
@pytest.mark.parametrize("body", [b"%s", b'{"items": [{"sku": "MUG-01", "quantity": %s}]}'])
def test_numbers_that_json_does_not_have_are_refused(api, mug, number, body):
    assert_problem(api.place(body % number), 400, "malformed-request")


@pytest.mark.parametrize("number", [b"9" * 5000, b"-" + b"9" * 5000, b"1e400", b"-1e400", b"1e-400", b"0.1"])
def test_out_of_range_numbers_are_pointed_at(api, mug, number):
    body = json.dumps(order_of()).encode().replace(b'"quantity": 2', b'"quantity": ' + number)

    assert pointers(assert_problem(api.place(body), 422, "validation-failed")) == ["/items/0/quantity"]


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf-16",
        "application/json; charset=iso-8859-1",
        "application/json; charset=hex",
        "application/json; charset=nothing",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json-patch+json",
        "application/json, text/plain",
        "x",
        "",
    ],
)
@pytest.mark.parametrize("path", [ORDERS, f"{ORDERS}/OF-1/cancel"])
def test_unsupported_types_and_character_sets_are_refused(api, mug, path, kind):
    response = api.post(path, order_of(), key="k", **{"Content-Type": kind})

    assert_problem(response, 415, "unsupported-media-type")
    assert not Order.objects.exists()


@pytest.mark.parametrize(
    "kind", ["application/json; charset=UTF-8", 'Application/JSON;charset="utf-8"', "application/json;"]
)
def test_utf_8_may_be_named(api, mug, kind):
    assert api.post(ORDERS, order_of(), key="k", **{"Content-Type": kind}).status_code == 201


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "x", "identity, gzip"])
@pytest.mark.parametrize("path", [ORDERS, f"{ORDERS}/OF-1/cancel"])
def test_unsupported_encodings_are_refused_with_the_supported_ones(api, mug, path, encoding):
    response = api.post(
        path, gzip.compress(json.dumps(order_of()).encode()), key="k", **{"Content-Encoding": encoding}
    )

    assert_problem(response, 415, "unsupported-media-type")
    assert response["Accept-Encoding"] == "identity"


def test_no_encoding_may_be_named(api, mug):
    assert api.post(ORDERS, order_of(), key="k", **{"Content-Encoding": "identity"}).status_code == 201


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_json_that_is_not_utf_8_is_refused(api, mug, encoding):
    body = json.dumps(order_of(customer={"name": "Zoë"}), ensure_ascii=False).encode(encoding)

    assert_problem(api.place(body), 400, "malformed-request")


@pytest.mark.parametrize("body", [b"{", b'{"a": 1, "a": 2}', b"\xff", b"[" * 60_000])
def test_a_body_that_is_not_needed_is_readable_all_the_same(api, mug, body):
    order = api.place(order_of()).json()

    assert_problem(api.post(order["links"]["cancel"], body), 400, "malformed-request")
    assert Order.objects.get().cancel_requested_at is None


@pytest.mark.parametrize("length", ["-1", "1e3", "²", "0x10", "٣", "1_0"])
def test_an_invalid_length_is_refused(api, mug, length):
    response = api.http.post(
        ORDERS, order_of(), content_type="application/json", headers=api.headers, CONTENT_LENGTH=length
    )

    assert_problem(response, 400, "malformed-request")


def test_a_length_of_many_digits_is_too_large(api, mug):
    response = api.http.post(
        ORDERS, order_of(), content_type="application/json", headers=api.headers, CONTENT_LENGTH="9" * 5000
    )

    assert_problem(response, 413, "body-too-large")


def test_chunks_are_refused_where_the_server_cannot_detect_their_end(api, mug):
    response = api.http.post(
        ORDERS,
        order_of(),
        content_type="application/json",
        headers=api.headers | {"Transfer-Encoding": "chunked"},
        CONTENT_LENGTH="",
    )

    assert_problem(response, 411, "length-required")
