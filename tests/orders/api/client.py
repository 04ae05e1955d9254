"""A client of the API, its requests, and the required format of responses."""

from __future__ import annotations

import contextlib
import json
import uuid
from typing import Any

import redis
from django.conf import settings as project_settings
from django.test import Client

from orders import moves, transitions
from orders.clients import tokens
from orders.models import Order
from outbox import context

ORDERS = "/api/v1/orders"


class ApiClient:
    """A client with a token; `problem` is for responses that must be one."""

    def __init__(self, *scopes: str, name: str = "", client: str = "") -> None:
        self.token, self.secret = tokens.create(
            name or f"shop-{uuid.uuid4().hex[:8]}", scopes=scopes or tokens.ORDINARY, client=client
        )
        self.client_id = self.token.client_id
        self.http = Client(raise_request_exception=False)
        self.headers = {"Authorization": f"Bearer {self.secret}"}

    def get(self, path: str, query: dict | None = None, **headers: str):
        return self.http.get(path, query or {}, headers=self.headers | headers)

    def post(self, path: str, body: Any = None, *, key: str | None = None, **headers: str):
        data = body if isinstance(body, bytes) else json.dumps(body) if body is not None else ""
        keyed = {"Idempotency-Key": key} if key is not None else {}
        return self.http.post(
            path, data, content_type="application/json", headers=self.headers | keyed | headers
        )

    def place(self, body: Any, *, key: str | None = None):
        return self.post(ORDERS, body, key=key or str(uuid.uuid4()))


def clear_limits() -> None:
    if project_settings.REDIS_URL:
        with contextlib.closing(redis.Redis.from_url(project_settings.REDIS_URL)) as shared:
            if names := list(shared.scan_iter("api-limits*")):
                shared.delete(*names)


def order_of(*skus: str, **changed: Any) -> dict[str, Any]:
    body = {
        "items": [{"sku": sku, "quantity": 2} for sku in skus or ["MUG-01"]],
        "currency": "GBP",
        "payment_method": "pm_card_visa",
        "customer": {"name": "Ada Example", "email": "ada@example.com", "phone": "+447700900123"},
        "country": "GB",
        "client_reference": "cart-1",
    }
    return {name: value for name, value in (body | changed).items() if value is not ...}


def assert_problem(response, status: int, code: str) -> dict[str, Any]:
    assert response["Content-Type"] == "application/problem+json", response.content
    problem = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert problem["type"] == f"/api/v1/problems/{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"].startswith("/")
    assert problem["request_id"] == response["X-Request-ID"]
    assert "Traceback" not in response.content.decode()
    return problem


def pointers(problem: dict[str, Any]) -> list[str]:
    return sorted(error["pointer"] for error in problem["errors"])


def numbers(response) -> list[str]:
    return [order["number"] for order in response.json()["items"]]


def move(order: Order, *statuses: moves.Status, **changes: Any) -> None:
    with context.bind(context.Context(correlation_id="c", task="orders.tasks.step")):
        for status in statuses:
            transitions.move(order, to=status, **changes)
