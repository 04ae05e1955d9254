"""
Error reports of requests, commands and tasks to Sentry, without personal data.

Only this module imports Sentry.
"""

from __future__ import annotations

from typing import Any

import sentry_sdk
from django.conf import settings
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.transport import Transport

from orderflow.observability import redaction
from outbox import telemetry

TOLD_OF_REQUESTS = ("method", "url", "headers")
"""The request data that is sent to Sentry."""


def connect_sentry(dsn: str, *, transport: type[Transport] | Transport | None = None) -> None:
    """Report errors of requests, commands and tasks, and missed beat entries; no personal data."""
    sentry_sdk.init(
        dsn=dsn,
        transport=transport,
        environment=settings.ENVIRONMENT,
        release=settings.RELEASE or None,
        max_request_body_size="never",
        include_local_variables=False,  # they contain customers' addresses
        integrations=[
            DjangoIntegration(),
            # Check-ins of the frequent entries would number thousands; the sweep and the drain emit
            # signals of their own.
            CeleryIntegration(
                # Messages carry the trace context of their publisher; the relay's own would replace it.
                propagate_traces=False,
                monitor_beat_tasks=True,
                exclude_beat_tasks=["drain.*", "resume.*", "read what.*", "settle.*", "notice a.*"],
            ),
        ],
        before_send=_redact_event,
        before_send_transaction=_redact_event,
    )


def _redact_event(event: Any, _: Any) -> Any:
    """An event for Sentry, without query strings, cookies and request bodies."""
    request = event.get("request")
    if isinstance(request, dict):
        event = {**event, "request": {name: request[name] for name in TOLD_OF_REQUESTS if name in request}}
    return _with_span(redaction.redacted(event))


def _with_span(event: Any) -> Any:
    """The event with the ids of the current span: Sentry has a trace of its own, which leads nowhere."""
    ids = telemetry.ids()
    if ids is None:
        return event
    contexts = event.get("contexts") or {}
    trace = {**contexts.get("trace", {}), **ids._asdict()}
    tags = {**(event.get("tags") or {}), **ids._asdict()}
    return {**event, "contexts": {**contexts, "trace": trace}, "tags": tags}
