"""Middleware for every request: correlation id, content security policy, and the links of the admin."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from django.conf import settings
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import BadRequest, ValidationError
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.urls import get_resolver, get_urlconf

from orderflow import health
from orderflow.shared_state import credentials
from orders import cards
from outbox import context, status

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
TRACE_PARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)

PROBES: dict[str, Callable[[HttpRequest], HttpResponse]] = {"/livez": health.livez, "/readyz": health.readyz}

GetResponse = Callable[[HttpRequest], HttpResponse]


class CorrelationIdMiddleware:
    """
    Give every request a correlation id, which is its `X-Request-ID` if that is well formed, and echo it.

    An id that looks like a card number is not accepted, because it would be stored with the order.

    Messages that the request publishes carry the id, and the trace context of `traceparent`, to every step.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        offered = request.headers.get("X-Request-ID", "")
        is_taken = REQUEST_ID.fullmatch(offered) and not cards.are_in(offered)
        correlation_id = offered if is_taken else str(uuid.uuid4())
        parent = request.headers.get("traceparent", "")
        trace = {"traceparent": parent} if TRACE_PARENT.fullmatch(parent) else {}
        with context.bind(context.Context(correlation_id=correlation_id, actor="http", trace=trace)):
            response = self.get_response(request)
        response["X-Request-ID"] = correlation_id
        return response


class ReadableTextMiddleware:
    """
    Refuse requests with a NUL in the URL or a cookie: the database cannot store it, and no valid text has one.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if any("\x00" in text for text in _texts(request)):
            return _refused(request, "there is a NUL in the address or a cookie")
        return self.get_response(request)


def _refused(request: HttpRequest, reason: str) -> HttpResponse:
    """The page or problem document for a bad request, in debug mode too."""
    refuse: Any = get_resolver(get_urlconf()).resolve_error_handler(400)
    return cast(HttpResponse, refuse(request, BadRequest(reason)))


def _texts(request: HttpRequest) -> Iterator[str]:
    yield request.path_info
    for name, values in request.GET.lists():
        yield from (name, *values)
    yield from request.COOKIES.values()


class AdminLookupsMiddleware:
    """
    Refuse lookups that no filter of an admin list uses: Django would pass them on to the database.

    For example `status__regex=…`, which keeps the database busy, or `id__range=1`, which is not a range. Django
    does not validate the keys of rows that an action is for, either.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], arguments: Any, named: Any
    ) -> HttpResponse | None:
        """Called before the view, which for a page of the admin identifies its model."""
        shown = getattr(view, "model_admin", None)
        if shown is None:
            return None
        if not all(_is_asked_by_filters(*given) for given in request.GET.lists()):
            return _refused(request, "no filter uses this lookup")
        if not all(_is_key(shown.model, key) for key in request.POST.getlist(ACTION_CHECKBOX_NAME)):
            return _refused(request, "no row has such a key")
        return None


def _is_asked_by_filters(name: str, values: Iterable[Any]) -> bool:
    _, separator, lookup = name.rpartition("__")
    return (
        not separator or lookup in LOOKUPS or (lookup in DATE_PARTS and all(map(DATE_PART.fullmatch, values)))
    )


def _is_key(model: type[Model], key: str) -> bool:
    try:
        model._meta.pk.to_python(key)
    except ValidationError:
        return False
    return True


LOOKUPS = frozenset({"exact", "isnull", "gte", "lt", "in"})
DATE_PARTS = frozenset({"year", "month", "day"})
DATE_PART = re.compile(r"[1-9]\d{0,3}", re.ASCII)


class ProbesMiddleware:
    """
    Respond to probes before the host is checked: an orchestrator uses an IP address, which is not in
    `ALLOWED_HOSTS`. The responses do not contain the host.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        probe = PROBES.get(request.path_info)
        return probe(request) if probe else self.get_response(request)


class ContentSecurityPolicyMiddleware:
    """Send a strict policy with every page that does not set its own."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return response


def links(request: HttpRequest) -> dict[str, Any]:
    """Template context: links to the other pages, and what holds up a whole channel."""
    return {
        "flower_url": settings.FLOWER_URL,
        "sandbox_url": settings.SANDBOX_URL,
        "grafana_url": settings.GRAFANA_URL,
        "runbooks_url": settings.RUNBOOKS_URL.rstrip("/"),
        "environment": settings.ENVIRONMENT,
        # Evaluated only by the pages that show them.
        "credentials_refused": credentials.refused,
        "database_restore": status.restore,
    }
