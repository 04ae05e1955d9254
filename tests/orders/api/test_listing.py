"""Lists of orders: pages that do not shift, and unambiguous filters."""

from __future__ import annotations

import base64
import datetime as dt
import uuid

import pytest

from orders import moves, services
from tests.factories import ProductFactory, place
from tests.orders.api.client import (
    ORDERS,
    assert_problem,
    move,
    numbers,
    pointers,
)


def test_pages_do_not_shift_while_orders_are_placed(api, db):
    product = ProductFactory()
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    expected = [place(product, client_id=api.client_id, placed_at=moment).number for _ in range(7)]
    seen, query = [], {"limit": "3"}
    for _ in range(3):
        response = api.get(ORDERS, query)
        seen += numbers(response)
        query["cursor"] = response.json()["next_cursor"]
        place(product, client_id=api.client_id)

    assert query["cursor"] is None
    assert sorted(seen) == sorted(expected)


def test_orders_come_newest_first_and_can_be_filtered(api, db):
    product = ProductFactory()
    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    old = place(product, client_id=api.client_id, placed_at=day, client_reference="cart-1")
    new = place(
        product,
        client_id=api.client_id,
        placed_at=day + dt.timedelta(days=1),
        contact=services.Contact(email="bob@example.com"),
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
        place(product, client_id=api.client_id)
    api.get(ORDERS)

    with django_assert_max_num_queries(6):
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
    ],
)
def test_contradictory_filters_are_refused(api, db, query, pointer):
    assert pointers(assert_problem(api.get(ORDERS, query), 422, "validation-failed")) == [pointer]
