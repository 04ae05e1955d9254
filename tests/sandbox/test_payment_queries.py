"""Finding payments again: lists and searches."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import stripe

from orderflow.sandbox.launch import Sandbox

from .clients import payment, stripe_client


@pytest.fixture
def ids(payments: Sandbox) -> list[str]:
    """Seven payments, oldest first."""
    client = stripe_client(payments)
    return [
        client.v1.payment_intents.create(
            payment(amount=100 + number, metadata={"order_id": f"order-{number}", "batch": "it's"})
        ).id
        for number in range(7)
    ]


def found(client: stripe.StripeClient, query: str) -> list[str]:
    return [intent.id for intent in client.v1.payment_intents.search({"query": query}).data]


def test_a_list_has_the_newest_first_and_pages(payments: Sandbox, ids: list[str]) -> None:
    client = stripe_client(payments)

    page = client.v1.payment_intents.list({"limit": 3})

    assert [intent.id for intent in page.data] == ids[:3:-1]
    assert page.has_more
    assert [intent.id for intent in page.auto_paging_iter()] == ids[::-1]
    before = client.v1.payment_intents.list({"limit": 2, "ending_before": ids[1]})
    assert [intent.id for intent in before.data] == [ids[3], ids[2]]


def test_a_list_can_be_limited_in_time(payments: Sandbox, ids: list[str]) -> None:
    client = stripe_client(payments)
    now = int(time.time())

    assert len(client.v1.payment_intents.list({"created": {"gte": now - 60, "lt": now + 60}}).data) == 7
    assert client.v1.payment_intents.list({"created": {"gt": now + 60}}).data == []


def test_a_search_finds_a_payment_by_its_metadata(payments: Sandbox, ids: list[str]) -> None:
    client = stripe_client(payments)

    assert found(client, "metadata['order_id']:'order-4'") == [ids[4]]
    assert found(client, 'metadata["order_id"]:"order-4" AND status:"succeeded"') == [ids[4]]
    assert found(client, "metadata['order_id']:'order-1' OR metadata['order_id']:'order-2'") == [ids[2], ids[1]]
    assert found(client, "metadata['order_id']:'order-4' AND status:'canceled'") == []
    assert found(client, "-metadata['order_id']:'order-4' AND amount>=105") == [ids[6], ids[5]]
    assert found(client, r"metadata['batch']:'it\'s' AND amount:102 AND currency:'gbp'") == [ids[2]]
    assert found(client, "metadata['missing']:null AND amount<101") == [ids[0]]


def test_a_search_pages(payments: Sandbox, ids: list[str]) -> None:
    client = stripe_client(payments)

    page = client.v1.payment_intents.search({"query": "status:'succeeded'", "limit": 3})

    assert page.object == "search_result"
    assert page.next_page
    assert [intent.id for intent in page.auto_paging_iter()] == ids[::-1]


@pytest.mark.parametrize(
    "query",
    [
        "order-1",
        "metadata['order_id']:'x' AND status:'y' OR status:'z'",
        "metadata['order_id']>'x'",
        "status:'succeeded'; DROP TABLE entries",
        "amount:'many'",
    ],
)
def test_an_invalid_query_is_refused(payments: Sandbox, query: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as raised:
        found(stripe_client(payments), query)

    assert (raised.value.http_status, raised.value.param) == (400, "query")


def test_search_terms_are_never_sql(payments: Sandbox, ids: list[str]) -> None:
    client = stripe_client(payments)

    assert found(client, "metadata['order_id']:\"x' OR '1'='1\"") == []
    assert found(client, "metadata[\"x' OR '1'='1\"]:'x'") == []


def test_searches_may_lag_behind_as_they_do_at_stripe(tmp_path: Path) -> None:
    with Sandbox("payments", tmp_path, options=["--search-lag", "0.3"]) as payments:
        client = stripe_client(payments)
        intent = client.v1.payment_intents.create(payment())

        assert found(client, "metadata['order_id']:'order-1'") == []
        time.sleep(0.35)
        assert found(client, "metadata['order_id']:'order-1'") == [intent.id]


@pytest.mark.parametrize("limit", [0, 101])
def test_a_page_has_between_1_and_100_payments(payments: Sandbox, limit: int) -> None:
    with pytest.raises(stripe.InvalidRequestError) as raised:
        stripe_client(payments).v1.payment_intents.list({"limit": limit})

    assert raised.value.param == "limit"
