"""
Logs and error tracking: what happens to the facts that `outbox.telemetry` states.

The vendors are named here and nowhere else. Logs are structured, carry the ids of the work at hand
and pass a redaction that knows the shapes personal data come in.
"""

from __future__ import annotations

import logging
import logging.config
import re
from collections.abc import MutableMapping
from typing import Any

import sentry_sdk
import structlog
from django.conf import settings
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.transport import Transport

from outbox import context, inline, telemetry

REDACTED = "[redacted]"
_SHAPES = (
    # What a text of this shape has in it, in lower case, is looked for first: nearly no text has any.
    ("@", re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")),  # e-mail addresses
    ("+", re.compile(r"(?<![\w-])\+\d{7,15}\b")),  # phone numbers, E.164
    ("_", re.compile(r"\b(?:sk|rk|of)_(?:live|test)_\w+")),  # keys and tokens
    ("bearer", re.compile(r"(?i)\bbearer\s+\S+")),
    ("://", re.compile(r"(?<=://)[^/@\s]+:[^/@\s]+(?=@)")),  # passwords in URLs
)
_MANY_DIGITS = re.compile(r"\d[\d -]{11}")
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
_WARNINGS = frozenset(
    {
        "message.buried",
        "message.parked",
        "message.postponed",
        "relay.broker_down",
        "step.database_down",
        "verification.failed",
        "step.fenced",
        "charge.stranded",
    }
)
_QUIET = frozenset({"relay.published", "step.finished", "step.skipped"})
"""Facts of the daily work: at debug level, or they would drown the others."""

EventDict = MutableMapping[str, Any]

_logger = structlog.stdlib.get_logger("orderflow")


def connect() -> None:
    """Receive facts, and report errors to Sentry when `SENTRY_DSN` is set. Called once by `apps.ready()`."""
    _hand_over_to_logging()
    telemetry.register(log_fact)
    if settings.SENTRY_DSN:
        connect_sentry(settings.SENTRY_DSN)


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
            # facts of their own.
            CeleryIntegration(
                # Messages carry the trace of what published them; the relay's own would take its place.
                propagate_traces=False,
                monitor_beat_tasks=True,
                exclude_beat_tasks=["drain.*", "resume.*", "read what.*"],
            ),
        ],
        before_send=_redact_event,
    )


def configure_logging() -> None:
    """Send logs to standard error: JSON for machines, or readable lines with `LOG_FORMAT=console`."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.LOG_FORMAT == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "structured": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": _processors(),
                    "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
            "filters": {"no ticks": {"()": NoTicks}, "own results": {"()": OwnResults}},
            "loggers": {
                "celery.beat": {"filters": ["no ticks"]},
                "celery.app.trace": {"filters": ["own results"]},
            },
            "root": {"handlers": ["stderr"], "level": settings.LOG_LEVEL},
        }
    )


class NoTicks(logging.Filter):
    """Keeps beat from saying every second that it ticks."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Scheduler: Sending due task")


class OwnResults(logging.Filter):
    """Has Celery tell a task's own result, not what followed it inline: those links have lines of their own."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, dict) and isinstance(told := record.args.get("return_value"), str):
            own, seconds, _ = inline.read(told)
            if seconds is not None:
                record.args = {**record.args, "return_value": own, "runtime": seconds}
        return True


def _processors() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_context,
        structlog.processors.format_exc_info,
        redact,
    ]


def _hand_over_to_logging() -> None:
    """Let structlog write through the standard library, or it would print to a command's output."""
    structlog.configure(
        # What nobody will read is not made ready first: most facts are quiet ones.
        processors=[
            structlog.stdlib.filter_by_level,
            *_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def log_fact(fact: str, fields: dict[str, Any]) -> None:
    """Write a fact as one log line."""
    level = logging.WARNING if fact in _WARNINGS else logging.DEBUG if fact in _QUIET else logging.INFO
    _logger.log(level, fact, **fields)


def add_context(_: Any, __: str, event: EventDict) -> EventDict:
    """Name the request, the message and the task that a line belongs to."""
    work = context.current_or_none()
    if work is not None:
        event.setdefault("correlation_id", work.correlation_id)
        if work.causation_id:
            event.setdefault("message_id", work.causation_id)
        if work.task:
            event.setdefault("task", work.task)
    return event


def redact(_: Any, __: str, event: EventDict) -> EventDict:
    """Replace what looks like an address, a card, a phone number or a secret, however deep it lies."""
    return {key: redacted(value) for key, value in event.items()}


def redacted(value: Any) -> Any:
    """`value` without what looks like personal data or a secret; ids and numbers stay."""
    if isinstance(value, str):
        text = value.lower()
        for sign, shape in _SHAPES:
            if sign in text:
                value = shape.sub(REDACTED, value)
        if _MANY_DIGITS.search(value):
            value = _CARD.sub(REDACTED, value)
        return value
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return value


def _redact_event(event: Any, _: Any) -> Any:
    return redacted(event)
