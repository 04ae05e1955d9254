"""
Tokens and orders from before there were clients: migrated, and back, and orders placed late by older code.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client

from orders import services
from orders.clients import ownership, tokens
from orders.models import ApiClient, ApiToken, Order
from tests.factories import place
from tests.orders.api.client import ORDERS, clear_limits, numbers

BEFORE = [("orders", "0008_refunds_by_other_means")]
BACKFILL = importlib.import_module("orders.migrations.0012_orders_of_clients")


def migrate(targets) -> None:
    MigrationExecutor(connection).migrate(targets)
    connection.close()  # with statements prepared for the previous tables


@pytest.fixture
def before(transactional_db):
    """The database before there were clients."""
    latest = [node for node in MigrationExecutor(connection).loader.graph.leaf_nodes() if node[0] == "orders"]
    migrate(BEFORE)
    yield lambda: migrate(latest)
    rows("TRUNCATE orders_apitoken, orders_order CASCADE")
    migrate(latest)


def rows(sql: str, *values) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


def old_token(pk: int, name: str, *scopes: str) -> str:
    secret = tokens._new_secret()
    rows(
        "INSERT INTO orders_apitoken (id, name, digest, scopes) VALUES (%s, %s, %s, %s)",
        pk,
        name,
        tokens._digest(secret),
        json.dumps(scopes),
    )
    return secret


def placed(number: int, scope: str) -> str:
    """The id of an order that a version without clients places for the holder of a key."""
    ((pk,),) = rows(
        """
        INSERT INTO orders_order (id, number, source, client_reference, customer_name, customer_email,
            customer_phone, customer_push_token, country, payment_method, currency, total_minor, status,
            reason, version, due_at, resumptions, message_id, correlation_id)
        VALUES (gen_random_uuid(), %s, 'api', '', '', '', '', '', 'GB', 'pm', 'GBP', 100, 'placed',
            '', 1, now(), 0, gen_random_uuid(), '')
        RETURNING id
        """,
        f"OF-{number}",
    )
    rows(
        """
        INSERT INTO orders_idempotencyrecord (scope, key, fingerprint, order_id, status_code, answer)
        VALUES (%s, %s, 'f', %s, 201, '{}')
        """,
        scope,
        str(number),
        pk,
    )
    return str(pk)


def ask(secret: str):
    clear_limits()
    return Client().get(ORDERS, headers={"Authorization": f"Bearer {secret}"})


@pytest.mark.slow
def test_each_token_gets_a_client_with_the_orders_of_its_keys(before, monkeypatch):
    monkeypatch.setattr(BACKFILL, "BATCH", 2)
    shop, till = old_token(7, "shop", "orders:write", "orders:read"), old_token(40, "till", "orders:read")
    orders = [
        placed(n, scope) for n, scope in enumerate(["api:7", "api:40", "api:7", "api:9", "import", "api:7"])
    ]
    before()

    assert dict(ApiClient.objects.values_list("name", "pk")) == {"shop": 7, "till": 40}
    assert {token.name: token.client.name for token in ApiToken.objects.all()} == {
        "shop": "shop",
        "till": "till",
    }
    assert dict(ApiToken.objects.values_list("name", "scopes")) == {
        "shop": ["orders:cancel", "orders:read", "orders:write"],
        "till": ["orders:read"],
    }
    assert [Order.objects.get(pk=pk).client_id for pk in orders] == [7, 40, 7, None, None, 7]
    assert sorted(numbers(ask(shop))) == ["OF-0", "OF-2", "OF-5"]
    assert numbers(ask(till)) == ["OF-1"]
    _, auditor = tokens.create("auditor", scopes=[tokens.READ_ALL])
    assert len(numbers(ask(auditor))) == 6
    assert ApiClient.objects.get(name="auditor").pk == 41


@pytest.mark.slow
def test_a_key_that_was_used_before_stands_for_the_same_order_after(before):
    secret = old_token(7, "shop", "orders:write")
    pk = placed(1, "api:7")
    before()
    key = services.IdempotencyKey(scope=f"api:{tokens.find(secret).client_id}", key="1", fingerprint="f")

    assert str(place(idempotency=key).pk) == pk


@pytest.mark.slow
def test_the_way_back_and_forth_keeps_tokens_and_orders(before):
    secret = old_token(7, "shop", "orders:write", "orders:read")
    placed(1, "api:7")
    before()
    migrate(BEFORE)
    assert rows("SELECT name, digest FROM orders_apitoken") == [("shop", tokens._digest(secret))]
    assert rows("SELECT number FROM orders_order") == [("OF-1",)]
    before()

    assert numbers(ask(secret)) == ["OF-1"]
    assert ApiToken.objects.get().scopes == ["orders:cancel", "orders:read", "orders:write"]


@pytest.mark.slow
def test_a_database_without_tokens_is_migrated(before):
    before()
    tokens.create("shop", scopes=[tokens.READ])

    assert ApiClient.objects.get().pk == 1


def test_orders_that_older_code_has_placed_afterwards_are_given_their_client(transactional_db, monkeypatch):
    monkeypatch.setattr(ownership, "BATCH", 2)
    token, secret = tokens.create("shop", scopes=[tokens.READ])
    for number, scope in enumerate([f"api:{token.client_id}", "import", f"api:{token.client_id}", "api:99"]):
        placed(number, scope)
    assert numbers(ask(secret)) == []

    out = io.StringIO()
    for _ in range(2):
        call_command("api_client", "assign_orders", stdout=out)
    assert [line[:1] for line in out.getvalue().splitlines()] == ["2", "0"]
    assert sorted(numbers(ask(secret))) == ["OF-0", "OF-2"]


def test_the_list_of_clients_shows_how_many_tokens_they_use(db):
    tokens.create("a", scopes=[tokens.READ], client="shop")
    tokens.create("b", scopes=[tokens.READ], client="shop")
    tokens.revoke("b")
    out = io.StringIO()
    call_command("api_client", "list", stdout=out)

    assert out.getvalue().startswith("shop\t1 tokens\t")


@pytest.mark.slow
def test_a_table_in_use_is_not_waited_for_long_and_nothing_has_changed(before, monkeypatch):
    secret = old_token(7, "shop", "orders:read")
    placed(1, "api:7")
    wait_briefly = importlib.import_module("orders.migrations.0011_orders_have_clients").Migration.operations[0]
    monkeypatch.setattr(wait_briefly, "sql", "SET LOCAL lock_timeout = '50ms'")
    reader = connection.copy()
    with contextlib.closing(reader), reader.cursor() as reading:
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM orders_order")
        with pytest.raises(OperationalError, match="lock timeout"):
            before()
    before()

    assert numbers(ask(secret)) == ["OF-1"]
