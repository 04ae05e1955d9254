"""What `manage.py check` says about settings that would hurt later."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from celery import current_app
from django.conf import settings
from django.core import checks
from django.db import connections
from django.utils.module_loading import import_string

from orders import steps, transitions
from outbox.consumer import ConsumerTask

BROKER_SCHEMES = ("redis", "rediss", "amqp", "amqps")
ADAPTERS = ("PAYMENT_GATEWAY", "WAREHOUSE", "BREAKER_FACTORY")
PROVIDERS = {
    "STRIPE_API_KEY": "orders cannot be charged",
    "WAREHOUSE_URL": "orders cannot be shipped",
    "TWILIO_ACCOUNT_SID": "no SMS can be sent",
    "FCM_PROJECT_ID": "no push can be sent",
}
PAYING = ("orders.tasks.charge", "orders.tasks.refund", "orders.tasks.refund_stranded")
"""Tasks whose calls the payment provider tells apart by a key that it forgets."""

CONNECTING = dt.timedelta(seconds=2)
"""How long adapters wait for a connection, besides the time for the answer."""

MOST_SESSIONS = 0.8
"""Of those that the server allows: the rest is for people, backups, deployments with twice the processes."""

REPLAYABLE_FOR = dt.timedelta(days=2)
"""How long people have at least to replay what was given up before anything that makes it safe may go."""


def connect() -> None:
    """Let Django run the checks."""
    checks.register(check_settings)
    checks.register(check_sessions, checks.Tags.database)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """All findings at once."""
    return [*_servers(), *_adapters(), *_providers(), *_times()]


def check_sessions(*, databases: Collection[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Whether the server allows what all processes together open. Asks it, so only when told to."""
    if "default" not in (databases or ()):
        return []
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "SELECT sum(setting::int) FILTER (WHERE name = 'max_connections')"
            " - sum(setting::int) FILTER (WHERE name <> 'max_connections') FROM pg_settings"
            " WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"
        )
        allowed = int(cursor.fetchone()[0])
    wanted = settings.DATABASE_SESSIONS
    if wanted <= MOST_SESSIONS * allowed:
        return []
    return [
        checks.Warning(
            f"The processes open {wanted} database sessions, and the server allows {allowed}.",
            hint="Put PgBouncer in front of it, for all but the relay, or raise max_connections; see "
            "docs/scaling.md. DATABASE_SESSIONS says how many there are.",
            id="orderflow.W003",
        )
    ]


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
    spans = {name: span_of_tries(task) for name, task in _consumers().items()}
    slowest = max(spans, key=lambda name: spans[name])
    needed = spans[slowest] + REPLAYABLE_FOR
    if dt.timedelta(days=settings.OUTBOX_RETENTION_DAYS) < needed:
        yield checks.Error(
            f"OUTBOX_RETENTION_DAYS is {settings.OUTBOX_RETENTION_DAYS}: the memory of duplicates would not "
            "outlive what can still be replayed.",
            hint=f"{slowest} is tried for {_hours(spans[slowest])}, and people need time: keep messages for at "
            f"least {_hours(needed)}.",
            id="orderflow.E006",
        )
    for name in PAYING:
        if spans[name] > steps.KEY_WINDOW:
            yield checks.Error(
                f"{name} is tried for {_hours(spans[name])}, longer than the payment provider remembers a key.",
                hint=f"Let the waits of its policy end within {_hours(steps.KEY_WINDOW)}.",
                id="orderflow.E008",
            )
    # Connecting may take 2 seconds more; see orders.transitions.LEASE.
    if settings.PROVIDER_TIMEOUT + CONNECTING >= transitions.LEASE:
        yield checks.Error(
            f"PROVIDER_TIMEOUT_SECONDS is {settings.PROVIDER_TIMEOUT / dt.timedelta(seconds=1):g}.",
            hint=f"A call must end within a step's lease of {transitions.LEASE.seconds} seconds, of which "
            f"connecting may take {CONNECTING.seconds}.",
            id="orderflow.E007",
        )


def span_of_tries(task: ConsumerTask) -> dt.timedelta:
    """How long after its first failure a consumer may still be trying by itself, outages not counted."""
    policy = task.policy
    quick = policy.longest_wait * (policy.attempts - 1) * (1 + len(policy.redelivery_waits))
    return sum(policy.redelivery_waits, quick)


def _consumers() -> dict[str, ConsumerTask]:
    return {
        name: task
        for name, task in current_app.tasks.items()
        if isinstance(task, ConsumerTask) and name.split(".")[0] in settings.PROJECT_PACKAGES
    }


def _hours(span: dt.timedelta) -> str:
    return f"{span / dt.timedelta(hours=1):.1f} hours"
