"""
Logs: the signals of `outbox.telemetry` as log lines.

Only this module imports structlog. Logs are structured, carry the ids of the current work and pass a redaction
that recognises personal data.
"""

from __future__ import annotations

import logging
import logging.config
import sys
import threading
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

from django.conf import settings

from orderflow.observability import lines, metric_processes, outcomes, redaction, trace_processes
from outbox import lean_imports, telemetry

with lean_imports.without("rich", "greenlet"):  # for coloured tracebacks and old contexts: 3 MB
    import structlog

_WARNINGS = frozenset(
    {
        "message.buried",
        "message.parked",
        "message.postponed",
        "message.undelivered",
        "periodic_task.failed",
        "provider.crowded",
        "relay.broker_down",
        "provider.called_in_transaction",
        "step.database_down",
        "verification.failed",
        "worker.retired",
        "database.restored",
        "step.fenced",
        "charge.stranded",
        "user.login_failed",
        "user.login_throttled",
        "user.second_factor_failed",
    }
)
_QUIET = frozenset(
    {
        "delivery.finished",
        "provider.called",
        "relay.batch_settled",
        "relay.published",
        "step.begun",
        "step.failed",
    }
)
"""Signals of routine work: at debug level, because they would hide the others."""

TALKATIVE = ("celery.worker.strategy", "stripe", "twilio")
"""Loggers that write a line for every task that arrives or for every call, which is no outcome yet. They have
their say from warnings on, or with `LOG_LEVEL=DEBUG`."""


EventDict = MutableMapping[str, Any]

_logger = logging.getLogger("orderflow")


def connect() -> None:
    """Receive signals, and report errors to Sentry if `SENTRY_DSN` is set. Called once by `apps.ready()`."""
    _hand_over_to_logging()
    telemetry.register(log_signal)
    trace_processes.connect()
    metric_processes.connect()
    if settings.SENTRY_DSN:
        from orderflow.observability import errors  # it loads Sentry's library

        errors.connect_sentry(settings.SENTRY_DSN)


def configure_logging() -> None:
    """Send logs to standard error: JSON for machines, or readable lines with `LOG_FORMAT=console`."""
    logging.captureWarnings(True)
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "structured": {
                    "()": lines.Lines,
                    "render": lines.to_json if settings.LOG_FORMAT == "json" else _to_console(),
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
            "filters": {"no ticks": {"()": NoTicks}, "outcomes": {"()": outcomes.Outcomes}},
            "loggers": {
                "celery.beat": {"filters": ["no ticks"]},
                outcomes.LOGGER: {"filters": ["outcomes"]},
                **{name: {"level": _level_of_talkative()} for name in TALKATIVE},
            },
            "root": {"handlers": ["stderr"], "level": settings.LOG_LEVEL},
        }
    )
    if settings.LOG_FORMAT == "json":
        sys.excepthook = _log_uncaught
        threading.excepthook = lambda uncaught: _log_uncaught(
            uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback
        )


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Log the exception that ends a process or a thread; Python would print a traceback."""
    if error is not None and not isinstance(error, SystemExit):
        logging.getLogger("orderflow").critical("uncaught exception", exc_info=(kind, error, trace))


class NoTicks(logging.Filter):
    """Drops beat's log line for every tick."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Scheduler: Sending due task")


def _level_of_talkative() -> str:
    return "DEBUG" if settings.LOG_LEVEL == "DEBUG" else "WARNING"


def _to_console() -> lines.Render:
    renderer: Any = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    return lambda event: renderer(None, "", event)


def _hand_over_to_logging() -> None:
    """Let structlog write through the standard library; otherwise it would print to a command's output."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_context,
            structlog.processors.format_exc_info,
            _redact,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def log_signal(signal: str, fields: dict[str, Any]) -> None:
    """Write a signal as one log line."""
    level = logging.WARNING if signal in _WARNINGS else logging.DEBUG if signal in _QUIET else logging.INFO
    if _logger.isEnabledFor(level):  # most signals are at debug level
        _logger.log(level, "%s", signal, extra={lines.SIGNAL: fields})


def _add_context(_: Any, __: str, event: EventDict) -> EventDict:
    lines.add_context(event)
    lines.add_span(event)
    return event


def _redact(_: Any, __: str, event: EventDict) -> EventDict:
    """Redact what other receivers of the record get, such as Sentry's."""
    return {
        key: value if key.startswith("_") else redaction.redacted({key: value})[key]
        for key, value in event.items()
    }
