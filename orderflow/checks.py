"""What `manage.py check` says about settings that would hurt later."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import limits
from celery import current_app
from django.conf import settings
from django.core import checks
from django.db import connections
from django.db.models import Model
from django.utils.module_loading import import_string
from psycopg import pq

from orderflow.configuration import tls
from orders import claims, transitions
from orders.adapters import stripe
from orders.clients import tokens
from orders.models import ApiToken
from outbox import periodic, resilience
from outbox.consumer import ConsumerTask
from outbox.database import clock
from outbox.models import PeriodicRun

BROKER_SCHEMES = ("redis", "rediss", "amqp", "amqps")
ADAPTERS = ("PAYMENT_GATEWAY", "WAREHOUSE", "OUTBOX_BREAKER_FACTORY")
PROVIDERS = {
    "STRIPE_API_KEY": "orders cannot be charged",
    "WAREHOUSE_URL": "orders cannot be shipped",
    "TWILIO_ACCOUNT_SID": "no SMS can be sent",
    "FCM_PROJECT_ID": "no push can be sent",
}
RATES = ("API_RATE_LIMIT", "LOGIN_RATE_PER_ADDRESS", "LOGIN_RATE_PER_USER")
"""How often somebody may ask. A misspelt one would fail each request instead of the start."""

ADDRESSES = {
    "STRIPE_API_KEY": ("STRIPE_API_BASE", stripe.LIVE),
    "TWILIO_ACCOUNT_SID": ("TWILIO_API_BASE", "https://api.twilio.com"),
    "FCM_PROJECT_ID": ("FCM_API_BASE", "https://fcm.googleapis.com"),
}
"""Providers that a sandbox may stand in for. Which of them is called is said, never guessed."""

PAYING = ("orders.tasks.charge", "orders.tasks.refund", "orders.tasks.refund_stranded")
"""Tasks whose calls the payment provider tells apart by a key that it forgets."""

CONNECTING = dt.timedelta(seconds=2)
"""How long adapters wait for a connection, besides the time for the answer."""

TOLERATED_SKEW = dt.timedelta(seconds=2)
"""By how much a clock may differ from the database's before somebody is told: NTP keeps it far below."""

MOST_SESSIONS = 0.8
"""Of those that the server allows: the rest is for people, backups, deployments with twice the processes."""

SHORTEST_KEY = 50
"""Characters of a SECRET_KEY, as `get_random_secret_key` makes them: it signs sessions and reset links."""

FEWEST_CHARACTERS = 5
"""How many different ones it has, so that nobody types the same one fifty times."""

EXPIRES_SOON = dt.timedelta(days=30)
"""How long before a token in use expires somebody is told: deploying a new secret takes a client days."""

REPLAYABLE_FOR = dt.timedelta(days=2)
"""How long people have at least to replay what was given up before anything that makes it safe may go."""


def connect() -> None:
    """Let Django run the checks."""
    checks.register(check_settings)
    checks.register(check_encryption, checks.Tags.security, deploy=True)
    checks.register(check_logins, checks.Tags.security, deploy=True)
    checks.register(check_sessions, checks.Tags.database)
    checks.register(check_clock, checks.Tags.database)
    checks.register(check_periodic_tasks, checks.Tags.database)
    checks.register(check_tokens, checks.Tags.database)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """All findings at once."""
    return [*_servers(), *_encryption(), *_adapters(), *_providers(), *_times(), *_rates(), *_production()]


def check_encryption(**_: Any) -> list[checks.CheckMessage]:
    """Which servers elsewhere are reached without TLS. Only `check --deploy` asks: the network may be ours."""
    plain = [
        name for name in ("BROKER_URL", "REDIS_URL", "WAREHOUSE_URL") if tls.is_plain(getattr(settings, name))
    ]
    database = settings.DATABASES["default"]
    mode = (database.get("OPTIONS") or {}).get("sslmode")
    if mode in tls.PLAIN_MODES and tls.is_elsewhere(database):
        plain.append("DATABASE_URL")
    return [
        checks.Warning(
            f"{name} leads to another machine without TLS.",
            hint="Who is on that network reads and alters what passes: see docs/deployment.md, or silence this "
            "where the network is yours alone.",
            id="orderflow.W007",
        )
        for name in plain
    ]


def check_logins(**_: Any) -> list[checks.CheckMessage]:
    """Whether a password alone opens the admin. Only `check --deploy` asks: it is optional elsewhere."""
    if settings.ADMIN_SECOND_FACTOR:
        return []
    return [
        checks.Warning(
            "ADMIN_SECOND_FACTOR is off: a password alone opens the admin.",
            hint="Give every user a device (`manage.py second_factor NAME`), then switch it on; silence this "
            "where something in front asks for a second factor.",
            id="orderflow.W009",
        )
    ]


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


def check_clock(*, databases: Collection[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Whether this machine's clock is near the database's. Nothing depends on it but what people read."""
    if "default" not in (databases or ()):
        return []
    ahead = clock.ahead()
    if abs(ahead) <= TOLERATED_SKEW:
        return []
    direction = "ahead of" if ahead > dt.timedelta() else "behind"
    return [
        checks.Warning(
            f"This machine's clock is {abs(ahead).total_seconds():.0f} s {direction} the database's.",
            hint="Synchronise it (NTP). Nothing is lost, as times that decide are the database's; logs, Flower "
            "and certificates go by this clock.",
            id="orderflow.W004",
        )
    ]


def check_periodic_tasks(*, databases: Collection[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Whether drains and sweeps were done in time. Warns only: after an error, beat would not start them."""
    if "default" not in (databases or ()) or not _has_table(PeriodicRun):
        return []
    return [
        checks.Warning(
            f"{standing.name}: {standing}.",
            hint="Start beat and the workers of the queues relay and jobs; `outbox_status` shows all of them.",
            id="orderflow.W005",
        )
        for standing in periodic.standings()
        if standing.is_late
    ]


def check_tokens(*, databases: Collection[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Whether a client is about to be locked out because nobody has rotated its token."""
    if "default" not in (databases or ()) or not _has_table(ApiToken):
        return []
    return [
        checks.Warning(
            f"The API token {name} is in use and expires at {ends_at:%Y-%m-%d %H:%M} UTC.",
            hint=f"`api_token rotate {name} --overlap 72` makes a new secret; the old one works meanwhile.",
            id="orderflow.W008",
        )
        for name, ends_at in tokens.expiring(within=EXPIRES_SOON)
    ]


def _has_table(model: type[Model]) -> bool:
    """`migrate` runs the checks before there are any tables."""
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [model._meta.db_table])
        return bool(cursor.fetchone()[0])


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


def _encryption() -> Iterator[checks.CheckMessage]:
    hint = (
        "See docs/deployment.md: rediss:// and amqps:// with ssl_ca_certs; PostgreSQL with sslmode=verify-full."
    )
    for name in ("BROKER_URL", "REDIS_URL"):
        for complaint in tls.complaints(getattr(settings, name), broker=name == "BROKER_URL"):
            yield checks.Error(f"{name}: {complaint}.", hint=hint, id="orderflow.E010")
    database = settings.DATABASES["default"]
    if "postgresql" not in database["ENGINE"]:
        return
    strict = settings.ENVIRONMENT == "production"
    for complaint in tls.database_complaints(database, default_mode=_default_sslmode(), strict=strict):
        yield checks.Error(
            f"DATABASE_URL: {complaint}.",
            hint=f"{hint} On a network that is yours alone, say so with sslmode=disable.",
            id="orderflow.E011",
        )


def _default_sslmode() -> str:
    """What libpq does when an address says nothing: PGSSLMODE, or its own default."""
    defaults = {option.keyword: option.val for option in pq.Conninfo.get_defaults()}
    return (defaults[b"sslmode"] or b"prefer").decode()


def _adapters() -> Iterator[checks.CheckMessage]:
    for name in ADAPTERS:
        try:
            import_string(getattr(settings, name))
        except ImportError as error:
            yield checks.Error(
                f"{name.removeprefix('OUTBOX_')} cannot be imported: {error}", id="orderflow.E004"
            )


def _providers() -> Iterator[checks.CheckMessage]:
    for name, consequence in PROVIDERS.items():
        if not getattr(settings, name):
            yield checks.Warning(f"{name} is not set: {consequence}.", id="orderflow.W002")
    for name, (base, live) in ADDRESSES.items():
        if getattr(settings, name) and not getattr(settings, base):
            yield checks.Error(
                f"{name} is set and {base} is not: whom to call is not clear.",
                hint=f"Write {base}={live}, or the address of a sandbox.",
                id="orderflow.E012",
            )
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
        if spans[name] > claims.KEY_WINDOW:
            yield checks.Error(
                f"{name} is tried for {_hours(spans[name])}, longer than the payment provider remembers a key.",
                hint=f"Let the waits of its policy end within {_hours(claims.KEY_WINDOW)}.",
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


def _rates() -> Iterator[checks.CheckMessage]:
    for name in RATES:
        try:
            limits.parse_many(getattr(settings, name))
        except ValueError:
            yield checks.Error(
                f"{name} is {getattr(settings, name)!r}, which is no rate.",
                hint="Write it as 10/minute; several are separated by semicolons.",
                id="orderflow.E013",
            )


def _production() -> Iterator[checks.CheckMessage]:
    if settings.ENVIRONMENT != "production":
        return
    key = settings.SECRET_KEY
    if len(key) < SHORTEST_KEY or len(set(key)) < FEWEST_CHARACTERS:
        yield checks.Error(
            f"SECRET_KEY is too easy to guess: it has fewer than {SHORTEST_KEY} characters, or fewer than "
            f"{FEWEST_CHARACTERS} different ones.",
            hint='Make one with: python -c "import secrets; print(secrets.token_urlsafe(50))"',
            id="orderflow.E009",
        )
    if settings.SECURE_SSL_REDIRECT and not settings.TRUSTED_PROXIES:
        yield checks.Warning(
            "TRUSTED_PROXIES is 0, so X-Forwarded-Proto is not believed.",
            hint="Behind a proxy that ends TLS every request would be redirected to itself: say how many "
            "proxies there are. Ignore this if gunicorn ends TLS itself.",
            id="orderflow.W006",
        )


def span_of_tries(task: ConsumerTask) -> dt.timedelta:
    """How long after its first failure a consumer may still be trying by itself, outages not counted."""
    policy = task.policy
    quick = policy.longest_wait * (policy.attempts - 1) * (1 + len(policy.redelivery_waits))
    spread = resilience.LONGEST_SPREAD * len(policy.redelivery_waits)
    return sum(policy.redelivery_waits, quick + spread)


def _consumers() -> dict[str, ConsumerTask]:
    return {
        name: task
        for name, task in current_app.tasks.items()
        if isinstance(task, ConsumerTask) and name.split(".")[0] in settings.OUTBOX_PROJECT_PACKAGES
    }


def _hours(span: dt.timedelta) -> str:
    return f"{span / dt.timedelta(hours=1):.1f} hours"
