"""Around every request: its correlation id, the content security policy, and the links of the admin."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from outbox import context

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
TRACE_PARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)

GetResponse = Callable[[HttpRequest], HttpResponse]


class CorrelationIdMiddleware:
    """
    Give every request a correlation id, its own `X-Request-ID` if that is well formed, and echo it.

    What the request publishes carries the id, and the trace context of `traceparent`, to every step.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        offered = request.headers.get("X-Request-ID", "")
        correlation_id = offered if REQUEST_ID.fullmatch(offered) else str(uuid.uuid4())
        parent = request.headers.get("traceparent", "")
        trace = {"traceparent": parent} if TRACE_PARENT.fullmatch(parent) else {}
        with context.bind(context.Context(correlation_id=correlation_id, actor="http", trace=trace)):
            response = self.get_response(request)
        response["X-Request-ID"] = correlation_id
        return response


class ContentSecurityPolicyMiddleware:
    """Send a strict policy with every page that does not bring its own."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return response


def links(request: HttpRequest) -> dict[str, str]:
    """Template context: where the other windows are."""
    return {
        "flower_url": settings.FLOWER_URL,
        "sandbox_url": settings.SANDBOX_URL,
        "environment": settings.ENVIRONMENT,
    }
