"""
Errors: what Sentry learns of requests, commands and tasks that fail, without personal data.

Sentry is named here and nowhere else.
"""

from __future__ import annotations

from typing import Any

import sentry_sdk
from django.conf import settings
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.transport import Transport

from orderflow.observability import redaction

TOLD_OF_REQUESTS = ("method", "url", "headers")
"""What Sentry learns of a request."""


def connect_sentry(dsn: str, *, transport: type[Transport] | Transport | None = None) -> None:
    """Report errors of requests, commands and tasks, and missed beat entries; no personal data."""
    sentry_sdk.init(
        dsn=dsn,
        transport=transport,
        environment=settings.ENVIRONMENT,
        release=settings.RELEASE or None,
        max_request_body_size="never",
        include_local_variables=False,  # they hold customers' addresses
        integrations=[
            DjangoIntegration(),
            # The frequent entries would be check-ins by the thousand; the sweep and the drain have
            # signals of their own.
            CeleryIntegration(
                # Messages carry the trace of what published them; the relay's own would take its place.
                propagate_traces=False,
                monitor_beat_tasks=True,
                exclude_beat_tasks=["drain.*", "resume.*", "read what.*", "settle.*", "notice a.*"],
            ),
        ],
        before_send=_redact_event,
        before_send_transaction=_redact_event,
    )


def _redact_event(event: Any, _: Any) -> Any:
    """An event for Sentry, without the query strings, cookies and bodies of requests."""
    request = event.get("request")
    if isinstance(request, dict):
        event = {**event, "request": {name: request[name] for name in TOLD_OF_REQUESTS if name in request}}
    return redaction.redacted(event)
