"""Tokens of API clients: scopes, rates, and the command that creates them."""

from __future__ import annotations

import datetime as dt
import io

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from orders.api import limits
from orders.clients import tokens
from orders.models import ApiToken
from outbox import telemetry
from tests.factories import ProductFactory
from tests.orders.api.client import ORDERS, ApiClient, assert_problem, clear_limits, order_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh_limits():
    clear_limits()
    limits.forget()
    yield
    limits.forget()


@pytest.fixture
def signals():
    seen: list[tuple[str, dict]] = []

    def receive(signal, fields):
        seen.append((signal, fields))

    telemetry.register(receive)
    yield seen
    telemetry.unregister(receive)


def api_token(*arguments: str) -> str:
    out = io.StringIO()
    call_command("api_token", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue().strip()


def status_with(secret: str) -> int:
    return Client().get(ORDERS, headers={"Authorization": f"Bearer {secret}"}).status_code


def test_a_token_is_printed_once_and_only_its_hash_is_kept():
    secret = api_token("create", "shop", "--scopes", "orders:read", "--expires", "30")

    token = ApiToken.objects.get()
    assert secret.startswith("of_test_")
    assert len(token.digest) == 64
    assert secret not in str(vars(token))
    assert 29 <= (token.expires_at - dt.datetime.now(dt.UTC)).days <= 30
    assert secret not in api_token("list")
    assert status_with(secret) == 200


def test_tokens_of_production_look_like_it(settings):
    settings.ENVIRONMENT = "production"

    assert api_token("create", "shop", "--scopes", "orders:read").startswith("of_live_")


def test_a_revoked_token_stops_working_for_good():
    secret = api_token("create", "shop", "--scopes", "orders:read")
    assert "revoked" in api_token("revoke", "shop")

    assert status_with(secret) == 401
    assert "revoked" in api_token("list")
    with pytest.raises(CommandError, match="no token named shop"):
        api_token("rotate", "shop")
    with pytest.raises(CommandError, match="already"):
        api_token("create", "shop", "--scopes", "orders:read")


def test_an_expired_token_stops_working():
    secret = api_token("create", "shop", "--scopes", "orders:read", "--expires", "1")
    ApiToken.objects.update(expires_at=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1))

    assert status_with(secret) == 401
    assert "expired" in api_token("list")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "shop", "--scopes", "orders:all"], "no such scope: orders:all"),
        (["create", "shop", "--scopes", "orders:read", "--expires", "0"], "--expires"),
        (["create", "", "--scopes", "orders:read"], "name"),
        (["create", "a\nb", "--scopes", "orders:read"], "name"),
        (["create", "shop", "--scopes", "orders:read", "--client", "c" * 101], "name"),
        (["create", "shop", "--scopes", "orders:read", "--from", "192.0.2.1/24"], "host bits"),
        (["create", "shop", "--scopes", "orders:read", "--from", "shop.example"], "192.0.2.0/24"),
        (["rotate", "nobody"], "no token named nobody"),
        (["rotate", "nobody", "--overlap", "-1"], "--overlap"),
        (["rotate", "nobody", "--overlap", "2161"], "--overlap"),
        (["allow", "nobody", "--from", "192.0.2.0/24"], "no token named nobody"),
        (["revoke", "nobody"], "no token named nobody"),
    ],
)
def test_mistakes_at_the_terminal_are_reported(arguments, message):
    with pytest.raises(CommandError, match=message):
        api_token(*arguments)


def test_the_use_of_a_token_is_noted_once_a_minute(django_assert_num_queries):
    api = ApiClient()
    api.get(ORDERS)
    first = ApiToken.objects.get().last_used_at
    api.get(ORDERS)
    assert ApiToken.objects.get().last_used_at == first

    long_ago = first - dt.timedelta(minutes=2)
    ApiToken.objects.update(last_used_at=long_ago)
    api.get(ORDERS)
    assert ApiToken.objects.get().last_used_at > long_ago


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer of_test_guess", "Basic YTpi", "bearer \u00fc"]
)
def test_every_operation_requires_a_valid_token(header):
    response = Client().get(ORDERS, headers={"Authorization": header} if header is not None else {})

    assert_problem(response, 401, "unauthenticated")
    assert response["WWW-Authenticate"].startswith("Bearer")


def test_a_token_does_what_its_scopes_say():
    ProductFactory(sku="MUG-01")
    reader, writer = ApiClient(tokens.READ), ApiClient(tokens.WRITE)
    auditor = ApiClient(tokens.READ_ALL)

    assert reader.get(ORDERS).status_code == auditor.get(ORDERS).status_code == 200
    problem = assert_problem(reader.place(order_of()), 403, "missing-scope")
    assert "orders:write" in problem["detail"]
    assert writer.place(order_of()).status_code == 201
    assert_problem(writer.get(ORDERS), 403, "missing-scope")
    assert_problem(reader.post(f"{ORDERS}/OF-1/cancel"), 403, "missing-scope")


def test_a_client_over_its_rate_has_to_wait_and_the_others_need_not(settings, signals):
    settings.API_RATE_LIMIT = "3/minute"
    eager, calm = ApiClient(), ApiClient()
    assert [eager.get(ORDERS).status_code for _ in range(4)] == [200, 200, 200, 429]

    response = eager.get(ORDERS)
    assert_problem(response, 429, "rate-limited")
    assert 1 <= int(response["Retry-After"]) <= 60
    assert calm.get(ORDERS).status_code == 200
    assert "api.throttled" in [signal for signal, _ in signals]


def test_guessing_tokens_is_limited_by_address_and_valid_ones_are_not_held_up(settings):
    settings.API_RATE_LIMIT = "3/minute"
    assert [status_with(f"of_test_{number}") for number in range(4)] == [401, 401, 401, 429]

    assert ApiClient().get(ORDERS).status_code == 200


def test_without_the_counts_all_requests_pass_and_it_is_logged(settings, signals):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    settings.API_RATE_LIMIT = "1/minute"
    api = ApiClient()

    assert [api.get(ORDERS).status_code for _ in range(3)] == [200, 200, 200]
    assert [signal for signal, _ in signals].count("api.limits_unavailable") == 1


def test_without_redis_each_process_counts_for_itself(settings):
    settings.REDIS_URL = ""
    settings.API_RATE_LIMIT = "2/minute"
    api = ApiClient()

    assert [api.get(ORDERS).status_code for _ in range(3)] == [200, 200, 429]
