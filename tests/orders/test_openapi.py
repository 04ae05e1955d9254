"""The API behaves as its document says, whatever is sent to it."""

from __future__ import annotations

import re

import pytest
import schemathesis
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from orderflow import middleware
from orders.api import document
from orders.models import Order
from tests.factories import ProductFactory, place
from tests.orders.api.client import ApiClient, clear_limits
from tests.slow import but_first

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OPERATIONS = [
    ("POST", "/api/v1/orders"),
    ("GET", "/api/v1/orders"),
    ("GET", "/api/v1/orders/{order_id}"),
    ("POST", "/api/v1/orders/{order_id}/cancel"),
]


@pytest.fixture
def api(db):
    clear_limits()
    return ApiClient()


@pytest.fixture
def application(db):
    """The WSGI application, leaving the test's database session open between requests."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield get_wsgi_application()
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def test_the_committed_documents_are_those_of_the_code():
    call_command("export_openapi", "--check")


def test_a_document_that_drifted_is_noticed(tmp_path):
    call_command("export_openapi", "--to", tmp_path)
    (tmp_path / "openapi.json").write_text("{}")

    with pytest.raises(CommandError, match=r"run manage\.py export_openapi"):
        call_command("export_openapi", "--to", tmp_path, "--check")


def test_every_operation_documents_its_problems():
    for path in document.api.get_openapi_schema()["paths"].values():
        for operation in path.values():
            assert {"401", "403", "429", "500", "503"} <= set(operation["responses"])
            for status, answer in operation["responses"].items():
                media = set(answer.get("content", {}))
                assert media == ({"application/problem+json"} if int(status) >= 400 else media)


@pytest.mark.parametrize("mode", but_first(schemathesis.GenerationMode))
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_response_is_as_documented(api, application, settings, method, path, mode):
    settings.API_RATE_LIMIT = "100000/minute"
    settings.ALLOWED_HOSTS = ["localhost"]
    ProductFactory(sku="MUG-01")
    place(client_id=api.client_id)
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", application, headers=api.headers)
    send_anything(schema[path][method], mode, api.headers)
    if (method, path, mode) == ("POST", "/api/v1/orders", schemathesis.GenerationMode.POSITIVE):
        assert Order.objects.count() > 5


def send_anything(operation, mode, headers) -> None:
    """Twenty requests, the same in every run."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=20,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case):
        if mode is schemathesis.GenerationMode.POSITIVE:
            _name_what_exists(case)
        case.call_and_validate(headers=headers, checks=CHECKS)

    send()


def _name_what_exists(case) -> None:
    """What no schema contains: the product, its currency, the order, and which unusual URLs are valid."""
    if isinstance(case.body, dict):
        case.body |= {"currency": "GBP", "payment_method": "pm_card_visa"}
        case.body.get("customer", {}).pop("email", None)
        for item in case.body["items"]:
            item["sku"] = "MUG-01"
    if case.path_parameters:
        case.path_parameters["order_id"] = Order.objects.latest("placed_at").number


def test_the_document_is_for_staff_and_holders_of_a_token(api, client):
    assert client.get("/api/v1/openapi.json").status_code == 401
    assert api.get("/api/v1/openapi.json").json()["openapi"].startswith("3.")

    client.force_login(User.objects.create_user("operator", is_staff=True))
    assert client.get("/api/v1/openapi.json").status_code == 200


def test_the_page_of_the_document_is_for_staff(client, db):
    response = client.get("/api/v1/docs")
    assert response.status_code == 302
    assert response["Location"].startswith("/admin/login/")

    client.force_login(User.objects.create_user("customer"))
    assert client.get("/api/v1/docs").status_code == 302


def test_the_page_of_the_document_runs_no_inline_script(client, db):
    client.force_login(User.objects.create_user("operator", is_staff=True))
    response = client.get("/api/v1/docs")

    page = response.content.decode()
    assert response.status_code == 200
    assert "/api/v1/openapi.json" in page
    assert response["Content-Security-Policy"] == middleware.CONTENT_SECURITY_POLICY
    scripts = re.findall(r"<script([^>]*)>", page)
    assert all("src=" in script or 'type="application/json"' in script for script in scripts)
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        assert Client().get(address).status_code == 200, address
