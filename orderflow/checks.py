"""What `manage.py check` says about settings that would hurt later."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

from orders import transitions

BROKER_SCHEMES = ("redis", "rediss", "amqp", "amqps")
ADAPTERS = ("PAYMENT_GATEWAY", "WAREHOUSE", "BREAKER_FACTORY")
PROVIDERS = {
    "STRIPE_API_KEY": "orders cannot be charged",
    "WAREHOUSE_URL": "orders cannot be shipped",
    "TWILIO_ACCOUNT_SID": "no SMS can be sent",
    "FCM_PROJECT_ID": "no push can be sent",
}
SHORTEST_RETENTION_DAYS = 2
"""Redeliveries are spread over hours; a message must outlive the last of them by far."""


def connect() -> None:
    """Let Django run the checks."""
    checks.register(check_settings)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """All findings at once."""
    return [*_servers(), *_adapters(), *_providers(), *_times()]


def _servers() -> Iterator[checks.CheckMessage]:
    scheme = urlsplit(settings.BROKER_URL).scheme
    if scheme not in BROKER_SCHEMES:
        yield checks.Error(
            f"BROKER_URL has the scheme {scheme!r}.",
            hint=f"Use one of {', '.join(f'{known}://' for known in BROKER_SCHEMES)}.",
            id="orderflow.E001",
        )
    if "postgresql" not in settings.DATABASES["default"]["ENGINE"]:
        yield checks.Error(
            "DATABASE_URL does not name a PostgreSQL server.",
            hint="OrderFlow needs SKIP LOCKED, advisory locks and LISTEN: use postgresql://…",
            id="orderflow.E002",
        )
    if settings.DATABASES["default"].get("OPTIONS", {}).get("pool"):
        yield checks.Error(
            "The database has a connection pool.",
            hint="Celery closes a pool around every task; remove it, or put PgBouncer in front.",
            id="orderflow.E003",
        )
    if not settings.REDIS_URL:
        yield checks.Warning(
            "REDIS_URL is not set.",
            hint="Without it every process has breakers and rate limits of its own.",
            id="orderflow.W001",
        )


def _adapters() -> Iterator[checks.CheckMessage]:
    for name in ADAPTERS:
        try:
            import_string(getattr(settings, name))
        except ImportError as error:
            yield checks.Error(f"{name} cannot be imported: {error}", id="orderflow.E004")


def _providers() -> Iterator[checks.CheckMessage]:
    for name, consequence in PROVIDERS.items():
        if not getattr(settings, name):
            yield checks.Warning(f"{name} is not set: {consequence}.", id="orderflow.W002")
    credentials = settings.FCM_CREDENTIALS_FILE
    if credentials and not Path(credentials).is_file():
        yield checks.Error(f"FCM_CREDENTIALS_FILE {credentials} is not there.", id="orderflow.E005")


def _times() -> Iterator[checks.CheckMessage]:
    if settings.OUTBOX_RETENTION_DAYS < SHORTEST_RETENTION_DAYS:
        yield checks.Error(
            f"OUTBOX_RETENTION_DAYS is {settings.OUTBOX_RETENTION_DAYS}.",
            hint=f"Keep messages at least {SHORTEST_RETENTION_DAYS} days: they are redelivered for hours.",
            id="orderflow.E006",
        )
    # A step makes two calls at most; see orders.transitions.LEASE.
    if 2 * settings.PROVIDER_TIMEOUT >= transitions.LEASE:
        yield checks.Error(
            f"PROVIDER_TIMEOUT_SECONDS is {settings.PROVIDER_TIMEOUT / dt.timedelta(seconds=1):g}.",
            hint=f"Two calls must end within a step's lease of {transitions.LEASE.seconds} seconds.",
            id="orderflow.E007",
        )
