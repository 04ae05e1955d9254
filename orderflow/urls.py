"""URLs, and the responses to requests that no view handles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views import defaults
from django.views.generic import RedirectView

from orderflow import health
from orderflow.metrics import page
from orderflow.ops import no_database
from orders.api import problems
from orders.api.problems import Problem

admin.autodiscover()

urlpatterns = [
    path("", RedirectView.as_view(url="/admin/")),
    path("livez", health.livez),
    path("readyz", health.readyz),
    path("healthz", health.healthz),
    path("metrics", page.metrics),
    path("admin/", admin.site.urls),
    path("", include("orders.api.urls")),
]


def _or_problem(code: str, page: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Django's own error page, but a problem document under /api: for failures before a view is reached."""

    def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.path.startswith("/api"):
            return problems.response(request, Problem(code))
        return page(request, *args, **kwargs)

    return view


handler400 = _or_problem("malformed-request", defaults.bad_request)
handler403 = _or_problem("forbidden", defaults.permission_denied)
handler404 = _or_problem("not-found", defaults.page_not_found)
handler500 = _or_problem("internal-error", no_database.server_error)
