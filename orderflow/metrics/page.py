"""
`/metrics`, for Prometheus: closed without a token that has the scope `metrics:read`.

While the database is down nobody can be recognised. The response then says which components are up, and nothing
else, to anybody.
"""

from __future__ import annotations

import os

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from orderflow.metrics import components
from orderflow.metrics.components import Components
from orderflow.metrics.descriptions import DATABASE
from orders.api import guard
from orders.api.auth import token_of
from orders.api.problems import Problem
from orders.clients import tokens

OPEN = ("orderflow_up",)

_of_process: dict[int, Components] = {}


@never_cache
@guard.guarded
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The metrics of rows, broker and Redis, in Prometheus' format."""
    from orderflow.observability import exporter  # only processes that are asked load it

    readings = _components().read()
    if components.is_up(readings, DATABASE):
        _check(request)
    else:
        readings = {name: values for name, values in readings.items() if name in OPEN}
    return HttpResponse(exporter.text(readings), content_type=exporter.CONTENT_TYPE)


def _check(request: HttpRequest) -> None:
    """
    Raises:
        orders.api.problems.Problem: unless the request is Prometheus', or of staff.
    """
    if hasattr(request, "user") and admin.site.has_permission(request):
        return
    token = token_of(request)
    if tokens.METRICS not in token.scopes:
        raise Problem(
            "missing-scope",
            f"the token {token.name} lacks the scope {tokens.METRICS}",
            headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{tokens.METRICS}"'},
        )


def _components() -> Components:
    """The components of this process: threads and locks do not survive a fork."""
    return _of_process.setdefault(os.getpid(), components.all_components())
