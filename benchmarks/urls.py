"""The project's URLs, and two baselines behind the same guard: less work, and naive work."""

from __future__ import annotations

from typing import Annotated, Any

from django.urls import include, path
from ninja import Header, NinjaAPI, Status

from benchmarks.naive import placing
from orders.api import fields, guard, representations, schemas
from orders.api.auth import BearerToken
from orders.clients import tokens

api = NinjaAPI(title="Baselines", urls_namespace="baselines", docs_url=None, openapi_url=None)
KEY = Annotated[str, Header(alias="Idempotency-Key", pattern=fields.IDEMPOTENCY_KEY)]
OPTIONS: Any = {"auth": BearerToken(tokens.WRITE), "response": {201: schemas.OrderSummary}, "by_alias": True}


@api.post("/only", **OPTIONS)
def place_order_only(request: Any, order: schemas.NewOrder, idempotency_key: KEY) -> Status[dict[str, Any]]:
    """Without outbox and without an idempotency record."""
    return Status(201, representations.placed(*placing.place_order_only(**_order_data(order))))


@api.post("/naive", **OPTIONS)
def place_order_naively(request: Any, order: schemas.NewOrder, idempotency_key: KEY) -> Status[dict[str, Any]]:
    """With `on_commit(chain.delay)`."""
    return Status(201, representations.placed(*placing.place_order(**_order_data(order))))


def _order_data(order: schemas.NewOrder) -> dict[str, Any]:
    skus = [item.sku for item in order.items]
    return {"skus": skus, "email": order.customer.email or "", "name": order.customer.name}


def _guarded() -> tuple[list[Any], str, str]:
    patterns, app_name, namespace = api.urls
    for pattern in patterns:
        pattern.callback = guard.guarded(pattern.callback)  # type: ignore[union-attr, arg-type]
    return patterns, app_name, namespace


urlpatterns = [path("baselines/", _guarded()), path("", include("orderflow.urls"))]
