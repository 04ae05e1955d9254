"""The addresses of the API; every one of them, and every other under /api, is behind the door."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path, re_path

from orders.api import document, guard


def _guarded_operations() -> tuple[list[URLResolver | URLPattern], str, str]:
    patterns, app_name, namespace = document.api.urls
    for pattern in patterns:
        assert isinstance(pattern, URLPattern)
        assert pattern.callback is not None
        pattern.callback = guard.guarded(pattern.callback)
    return patterns, app_name, namespace


urlpatterns = [
    path("api/v1/docs", document.docs, name="api-docs"),
    path("api/v1/openapi.json", guard.guarded(document.openapi), name="api-openapi"),
    path("api/v1/problems/<slug:code>", guard.guarded(document.problem_type), name="api-problem"),
    path("api/v1/", _guarded_operations()),
    re_path(r"^api(?:/.*)?$", guard.guarded(guard.nowhere)),
]
