"""Every error is a problem document that says what to do, and reveals nothing internal."""

from __future__ import annotations

import pytest

from orders import services
from tests.orders.api.client import (
    ORDERS,
    assert_problem,
    order_of,
)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/orders/", "/api/v2/x"]
)
def test_unknown_urls_are_a_problem(api, settings, debug, path):
    settings.DEBUG = debug

    assert_problem(api.get(path), 404, "not-found")
    assert_problem(api.post(path, {}), 404, "not-found")


def test_a_disallowed_method_is_a_problem(api, db):
    response = api.http.delete(ORDERS, headers=api.headers)

    assert_problem(response, 405, "method-not-allowed")
    assert response["Allow"] == "GET, POST"


@pytest.mark.parametrize("debug", [False, True])
def test_an_unexpected_error_reveals_nothing_internal(api, settings, monkeypatch, debug):
    settings.DEBUG = debug

    def fail(**_):
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(services, "place_order", fail)
    response = api.place(order_of())

    assert_problem(response, 500, "internal-error")
    assert "inside" not in response.content.decode()


def test_a_database_outage_is_a_temporary_problem(api, monkeypatch):
    from django.db import OperationalError

    def fail(**_):
        raise OperationalError("connection refused")

    monkeypatch.setattr(services, "place_order", fail)
    response = api.place(order_of())

    assert_problem(response, 503, "unavailable")
    assert response["Retry-After"] == "2"


def test_a_problem_names_the_trace_it_belongs_to(api, db):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    response = api.get(f"{ORDERS}/x", traceparent=f"00-{trace}-00f067aa0ba902b7-01")

    assert response.json()["trace_id"] == trace


def test_the_type_of_a_problem_leads_to_what_it_means(api, client, db):
    problem = api.get(f"{ORDERS}/x").json()

    assert "Not found" in client.get(problem["type"]).content.decode()
    assert_problem(client.get("/api/v1/problems/nothing"), 404, "not-found")
