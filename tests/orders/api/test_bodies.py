"""Bodies that are too large, no JSON, or JSON that is no order."""

from __future__ import annotations

import json

import pytest

from orders.api import door
from tests.orders.api.client import (
    ORDERS,
    assert_problem,
    order_of,
)


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


def test_the_limit_of_bodies_is_as_documented():
    assert door.LARGEST_BODY == 64 * 1024
