"""Requests that carry tokens over plain HTTP are refused where TLS is required, and never redirected."""

from __future__ import annotations

import pytest
from django.test import Client

from orders.models import ApiToken, Order
from tests.orders.api.client import ORDERS, ApiClient, assert_problem, order_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def production(settings):
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")


def refused(response) -> None:
    problem = assert_problem(response, 403, "tls-required")
    assert "counts as leaked" in problem["detail"]
    assert "Location" not in response


@pytest.mark.parametrize(
    "path", [ORDERS, f"{ORDERS}/OF-1", "/api/v1/openapi.json", "/api/v1/nothing", "/api", "/healthz"]
)
def test_plain_http_is_refused_with_what_follows_from_it(production, path):
    api = ApiClient()

    refused(api.get(path))
    refused(api.post(path))
    assert ApiToken.objects.get().last_used_at is None


def test_nothing_is_done_over_plain_http(production, mug):
    api = ApiClient()

    refused(api.place(order_of()))
    assert not Order.objects.exists()
    assert api.post(
        ORDERS, order_of(), key="once", **{"X-Forwarded-Proto": "https"}
    ).status_code == 201  # fmt: skip


@pytest.mark.parametrize("path", ["/api/v1/docs", "/api/v1/problems/tls-required", "/admin/"])
def test_pages_for_people_are_redirected_to_tls(production, path):
    response = Client().get(path)

    assert (response.status_code, response["Location"]) == (301, f"https://testserver{path}")


def test_without_tls_nothing_is_refused_where_none_is_required(settings):
    settings.SECURE_SSL_REDIRECT = False

    assert ApiClient().get(ORDERS).status_code == 200
