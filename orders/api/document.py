"""The API, its OpenAPI document, and the pages that show it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pydantic_core
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.html import format_html
from ninja import NinjaAPI
from ninja.renderers import BaseRenderer

from orders.api import guard, operations, problems
from orders.api.auth import token_of
from orders.api.bodies import StrictJson
from orders.api.problems import Problem

DESCRIPTION = """\
Place orders, follow them, cancel them.

* Requests carry `Authorization: Bearer …`, over HTTPS. The token's scopes are `orders:read`, `orders:write` and
  `orders:cancel`, for the orders of the client that the token belongs to; `orders:read:all` shows those of all.
  Another client's order gives the same response as one that does not exist.
* Money is in minor units; times are RFC 3339 with their offset.
* Every error is an `application/problem+json` document; use its `code` to distinguish errors.
* `X-Request-ID` is taken from the request, or generated, and is part of every response.
"""


def _header(description: str, kind: str = "string", **rules: Any) -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind} | rules}


HEADERS: dict[tuple[str, int], dict[str, Any]] = {
    ("place_order", 201): {
        "Location": _header("The URL of the order."),
        "Idempotent-Replayed": _header("`true` if a repeated request got the first one's response."),
    },
    ("get_order", 200): {
        "ETag": _header("Changes whenever the response changes."),
        "Retry-After": _header("Seconds after which to poll again, while the order is not final."),
    },
    ("place_order", 409): {"Retry-After": _header("Seconds to wait.")},
    ("get_order", 304): {"ETag": _header("The version that the client has.")},
    ("cancel_order", 202): {"Location": _header("The URL of the order.")},
}
ERROR_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": _header("How to authenticate.")},
    429: {"Retry-After": _header("Seconds to wait.")},
    503: {"Retry-After": _header("Seconds to wait.")},
}


class ExactJson(BaseRenderer):
    """JSON with the microseconds of times: ninja's own renderer truncates them, so filters would not match."""

    media_type = "application/json"

    def render(self, request: HttpRequest, data: Any, *, response_status: int) -> bytes:
        return pydantic_core.to_json(data)


class OrdersApi(NinjaAPI):
    """Ninja's API, with every error as a problem document, also in the OpenAPI document."""

    def set_default_exception_handlers(self) -> None:
        """Replace ninja's own handlers: in debug mode they would respond with a traceback."""
        self.add_exception_handler(Exception, guard.answer)

    def get_openapi_schema(self, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """Ninja's document, with the media type of problems and the headers of responses."""
        document = copy.deepcopy(dict(super().get_openapi_schema(**options)))
        for operation in (each for path in document["paths"].values() for each in path.values()):
            for parameter in operation["parameters"]:
                parameter.pop("examples", None)  # a list, which OpenAPI allows only inside the schema
            for status, answer in operation["responses"].items():
                headers = HEADERS.get((operation["operationId"], int(status)))
                if int(status) >= 400:
                    answer["content"] = {problems.CONTENT_TYPE: answer["content"]["application/json"]}
                    headers = headers or ERROR_HEADERS.get(int(status))
                if headers:
                    answer["headers"] = headers
            operation["responses"] = {str(status): answer for status, answer in operation["responses"].items()}
        return document


api = OrdersApi(
    title="OrderFlow",
    version="1.0.0",
    description=DESCRIPTION,
    urls_namespace="api-v1",
    openapi_url=None,
    docs_url=None,
    renderer=ExactJson(),
    parser=StrictJson(),
)
api.add_router("", operations.router)


def as_json() -> str:
    """The OpenAPI document, the same for the same code."""
    return json.dumps(api.get_openapi_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def openapi(request: HttpRequest) -> HttpResponse:
    """The OpenAPI document, for holders of a token and for staff."""
    if not _is_staff(request):
        token_of(request)
    return JsonResponse(api.get_openapi_schema())


@admin.site.admin_view
def docs(request: HttpRequest) -> HttpResponse:
    """
    Swagger UI with ninja's own files; the page has no inline script or style, so the strict policy applies.
    """
    settings = {"url": reverse("api-openapi"), "layout": "BaseLayout", "deepLinking": True}
    return render(request, "ninja/swagger.html", {"api": api, "swagger_settings": json.dumps(settings)})


def problem_type(request: HttpRequest, code: str) -> HttpResponse:
    """The description of a problem, at the URL of its `type`."""
    if code not in problems.CATALOGUE:
        raise Problem("not-found", "there is no such problem")
    kind = problems.CATALOGUE[code]
    return HttpResponse(
        format_html(
            '<!doctype html><html lang="en"><title>{0}</title><h1>{0}</h1>'
            "<p><code>{1}</code>, status {2}</p><p>{3}</p><p>{4}</p>",
            kind.title,
            code,
            kind.status,
            kind.meaning,
            kind.remedy,
        )
    )


def _is_staff(request: HttpRequest) -> bool:
    return hasattr(request, "user") and admin.site.has_permission(request)
