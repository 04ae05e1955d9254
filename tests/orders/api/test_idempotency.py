"""An idempotency key stands for one order, however often and by however many clients it is sent."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import threading
import time

import pytest
from django.db import connection

from orders import moves
from orders.clients import tokens
from orders.models import Order
from outbox.models import OutboxMessage
from tests.factories import ProductFactory
from tests.orders.api.client import (
    ORDERS,
    ApiClient,
    assert_problem,
    order_of,
)


def test_the_same_key_and_body_get_the_first_response_again(api, mug):
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
    _, secret = tokens.rotate(api.token.name)
    api.headers["Authorization"] = f"Bearer {secret}"

    assert api.place(order_of(), key="once").content == first.content


def test_an_order_without_a_key_is_refused(api, mug):
    assert_problem(api.post(ORDERS, order_of()), 400, "idempotency-key-missing")


@pytest.mark.parametrize(
    "key", ["once,once", "once, once", "once,", ",once", '"once","once"', '"once", "once"', "a,b"]
)
def test_two_keys_in_one_request_are_refused(api, mug, key):
    """A header that is sent twice arrives like this: joined."""
    api.place(order_of(), key="once")

    assert_problem(api.post(ORDERS, order_of(), key=key), 400, "idempotency-key-malformed")
    assert Order.objects.count() == 1


def test_a_quoted_key_may_have_a_comma(api, mug):
    assert api.place(order_of(), key='"a,b"').content == api.place(order_of(), key='"a,b"').content
    assert Order.objects.count() == 1


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
            cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"api:{api.client_id}\x1fonce"])
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
