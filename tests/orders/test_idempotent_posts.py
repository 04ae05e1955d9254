"""
A client that follows the API's advice gets one order and one response, however often it repeats the request.
"""

from __future__ import annotations

import concurrent.futures
import time

import pytest
from django.db import connections
from django.test import Client

from orders.models import Order
from outbox.models import OutboxMessage
from tests.factories import ProductFactory
from tests.orders.api.client import ORDERS, ApiClient, clear_limits, order_of

POSTS, AT_ONCE = 100, 40
"""PostgreSQL has a session for each request in progress, and 100 in total."""


@pytest.fixture
def shop(transactional_db):
    clear_limits()
    ProductFactory(sku="MUG-01")
    return ApiClient()


def post_until_answered(shop):
    """Post once, and again after the seconds that a refusal gives; return the response and the refusals."""
    http, refused = Client(raise_request_exception=False), []
    try:
        while True:
            answer = http.post(
                ORDERS,
                order_of(),
                content_type="application/json",
                headers=shop.headers | {"Idempotency-Key": "the-one-key"},
            )
            if answer.status_code != 409:
                return answer, refused
            refused.append(answer.json()["code"])
            time.sleep(int(answer["Retry-After"]))
    finally:
        connections.close_all()


def test_a_hundred_posts_with_one_key_give_one_order_and_a_hundred_equal_responses(shop):
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(post_until_answered, [shop] * POSTS))

    order = Order.objects.get()
    assert OutboxMessage.objects.count() == 1
    assert {answer.status_code for answer, _ in outcomes} == {201}
    assert {answer["Location"] for answer, _ in outcomes} == {f"{ORDERS}/{order.pk}"}
    assert len({answer.content for answer, _ in outcomes}) == 1
    assert sum(answer.get("Idempotent-Replayed") != "true" for answer, _ in outcomes) == 1
    assert {code for _, refused in outcomes for code in refused} <= {"idempotency-key-in-use"}
