"""
Error reports of requests, commands and tasks to Sentry, without personal data.

A group there is a group here: the errors of a task, and the burials of its messages, have the fingerprint of
their dead letters. Only this module and `monitors` import Sentry.
"""

from __future__ import annotations

from typing import Any

import sentry_sdk
from django.conf import settings
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.transport import Transport

from orderflow.observability import monitors, redaction
from outbox import telemetry
from outbox.dead_letters import burying

TOLD_OF_REQUESTS = ("method", "url", "headers")
"""The request data that is sent to Sentry."""


OUR_OWN = ("release", "environment")
"""Settings that events contain unchanged: a release such as `orderflow@7.1` looks like an address."""


def connect_sentry(dsn: str, *, transport: type[Transport] | Transport | None = None) -> None:
    """Report errors of requests, commands and tasks, and check in for periodic tasks; no personal data."""
    sentry_sdk.init(
        dsn=dsn,
        transport=transport,
        environment=settings.ENVIRONMENT,
        release=settings.RELEASE or None,
        max_request_body_size="never",
        include_local_variables=False,  # they contain customers' addresses
        integrations=[
            DjangoIntegration(),
            # Messages carry the trace context of their publisher; the relay's own would replace it.
            # `monitors` checks in for beat's entries; the integration's own way cannot for the frequent ones.
            CeleryIntegration(propagate_traces=False, monitor_beat_tasks=False),
        ],
        before_send=_prepare,
        before_send_transaction=_redact_event,
    )
    monitors.connect()
    telemetry.register(report_burial)


def report_burial(signal: str, fields: dict[str, Any]) -> None:
    """
    Report that a message was given up, in the group of the attempts that failed before.

    Some have no other event, because no task has raised their error: those of the relay, of workers that died
    and of hard time limits.
    """
    if signal != "message.buried":
        return
    sentry_sdk.capture_event(
        {
            "level": "error",
            "message": f"{fields['consumer']} gave up a message: {fields['error_class']}",
            "transaction": fields["consumer"],
            "fingerprint": [fields["fingerprint"]],
            "tags": {name: fields[name] for name in ("consumer", "error_class", "message_id") if fields[name]},
            "extra": {"attempts": fields["attempts"], "failed_again": fields["failed_again"]},
        }
    )


def _prepare(event: Any, hint: Any) -> Any:
    """An event for Sentry: redacted, and in the group of its cause."""
    return _redact_event(_with_fingerprint(event, hint), hint)


def _with_fingerprint(event: Any, hint: Any) -> Any:
    """The event of a task that failed, with the fingerprint of the dead letter that it is or will be."""
    job = (event.get("extra") or {}).get("celery-job")
    failure = (hint or {}).get("exc_info")
    if not job or not failure:
        return event
    kind, _, trace = failure
    found = burying.fingerprint(job["task_name"], kind.__name__, burying.site_of(trace))
    return {**event, "fingerprint": [found]}


def _redact_event(event: Any, _: Any) -> Any:
    """An event for Sentry, without query strings, cookies and request bodies."""
    request = event.get("request")
    if isinstance(request, dict):
        event = {**event, "request": {name: request[name] for name in TOLD_OF_REQUESTS if name in request}}
    own = {name: event[name] for name in OUR_OWN if name in event}
    return _with_span({**redaction.redacted(event), **own})


def _with_span(event: Any) -> Any:
    """The event with the ids of the current span: Sentry has a trace of its own, which leads nowhere."""
    ids = telemetry.ids()
    if ids is None:
        return event
    contexts = event.get("contexts") or {}
    trace = {**contexts.get("trace", {}), **ids._asdict()}
    tags = {**(event.get("tags") or {}), **ids._asdict()}
    return {**event, "contexts": {**contexts, "trace": trace}, "tags": tags}
