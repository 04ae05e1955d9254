"""The findings of `manage.py check` about settings that would cause trouble later."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from celery import current_app
from django.conf import settings
from django.core import checks
from django.db import connections
from django.db.models import Model
from django.utils.module_loading import import_string
from psycopg import pq

from orderflow.configuration import dotted_paths, tls
from orders import adapters, claims, transitions
from orders.clients import tokens
from orders.models import ApiToken
from outbox import periodic, resilience
from outbox.consumer import ConsumerTask
from outbox.database import clock, sessions
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
"""Rate limits. A misspelt one would fail each request instead of the start."""

ADDRESSES = {
    "STRIPE_API_KEY": ("STRIPE_API_BASE", adapters.STRIPE),
    "TWILIO_ACCOUNT_SID": ("TWILIO_API_BASE", "https://api.twilio.com"),
    "FCM_PROJECT_ID": ("FCM_API_BASE", "https://fcm.googleapis.com"),
}
"""Providers that a sandbox may replace. The address must be set explicitly; it is never guessed."""

PAYING = ("orders.tasks.charge", "orders.tasks.refund", "orders.tasks.refund_stranded")
"""Tasks whose calls the payment provider identifies by a key that it drops after a time."""

CONNECTING = dt.timedelta(seconds=2)
"""How long adapters wait for a connection, in addition to the time for the response."""

TOLERATED_SKEW = dt.timedelta(seconds=2)
"""The difference between a clock and the database's that is not reported: NTP keeps it far below."""

MOST_SESSIONS = 0.8
"""The part of the server's limit that may be used: the rest is for people, backups and rolling deployments."""

SHORTEST_KEY = 50
"""Minimum length of SECRET_KEY, as `get_random_secret_key` makes it: it signs sessions and reset links."""

FEWEST_CHARACTERS = 5
"""Minimum number of different characters in it, so that one character fifty times is refused."""

EXPIRES_SOON = dt.timedelta(days=30)
"""How long before a used token expires a warning appears: clients need days to deploy a new secret."""

REPLAYABLE_FOR = dt.timedelta(days=2)
"""The minimum time for people to replay a dead letter before the records that make that safe may be pruned."""


def connect() -> None:
    """Register the checks with Django."""
    checks.register(check_settings, "orderflow")
    checks.register(check_adapters, "adapters")
    checks.register(check_rates, "rates")
    checks.register(check_encryption, checks.Tags.security, deploy=True)
    checks.register(check_logins, checks.Tags.security, deploy=True)
    checks.register(check_sessions, checks.Tags.database)
    checks.register(check_clock, checks.Tags.database)
    checks.register(check_periodic_tasks, checks.Tags.database)
    checks.register(check_tokens, checks.Tags.database)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """All findings about settings."""
    adapters_found = _adapters(dotted_paths.complaint)
    return [*_servers(), *_encryption(), *adapters_found, *_providers(), *_times(), *_production()]


def check_adapters(**_: Any) -> list[checks.CheckMessage]:
    """
    Whether the adapters can be imported, with the libraries of their providers.

    No process checks this when it starts, because it would need the memory for all of them.
    """
    return list(_adapters(_import_error))


def check_rates(**_: Any) -> list[checks.CheckMessage]:
    """All rates. Only processes with pages check them when they start."""
    return list(_rates())


def check_encryption(**_: Any) -> list[checks.CheckMessage]:
    """Servers on other machines without TLS. Runs only in `check --deploy`: the network may be private."""
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
            hint="Everybody on that network can read and alter the traffic: see docs/deployment.md, or silence "
            "this if the network is private.",
            id="orderflow.W007",
        )
        for name in plain
    ]


def check_logins(**_: Any) -> list[checks.CheckMessage]:
    """Whether a password alone opens the admin. Runs only in `check --deploy`: elsewhere it is optional."""
    if settings.ADMIN_SECOND_FACTOR:
        return []
    return [
        checks.Warning(
            "ADMIN_SECOND_FACTOR is off: a password alone opens the admin.",
            hint="Give every user a device (`manage.py second_factor NAME`), then switch it on; silence this "
            "if a proxy in front requires a second factor.",
            id="orderflow.W009",
        )
    ]


def check_sessions(*, databases: Collection[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """
    Whether the server allows the sessions of all processes together. Queries it, so it runs only on request.
    """
    if "default" not in (databases or ()):
        return []
    allowed = sessions.room().allowed
    wanted = settings.DATABASE_SESSIONS
    if wanted <= MOST_SESSIONS * allowed:
        return []
    return [
        checks.Warning(
            f"The processes open {wanted} database sessions, and the server allows {allowed}, of which "
            f"{1 - MOST_SESSIONS:.0%} are for people, backups and deployments.",
            hint="Lower DATABASE_POOL_SIZE or the number of processes, put PgBouncer in front of the server "
            "for all processes except the relay, or raise max_connections; see docs/scaling.md. "
            "DATABASE_SESSIONS is the number of sessions.",
            id="orderflow.W003",
        )
    ]


def check_clock(*, databases: Collection[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Whether this machine's clock is close to the database's. Only logs and the like depend on it."""
    if "default" not in (databases or ()):
        return []
    ahead = clock.ahead()
    if abs(ahead) <= TOLERATED_SKEW:
        return []
    direction = "ahead of" if ahead > dt.timedelta() else "behind"
    return [
        checks.Warning(
            f"This machine's clock is {abs(ahead).total_seconds():.0f} s {direction} the database's.",
            hint="Synchronise it (NTP). Nothing is lost, because decisions use the database's clock; logs, "
            "Flower and certificates use this clock.",
            id="orderflow.W004",
        )
    ]


def check_periodic_tasks(*, databases: Collection[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Whether drains and sweeps ran in time. Only a warning: after an error, beat would not start them."""
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
    """Whether a client is about to be locked out because its token has not been rotated."""
    if "default" not in (databases or ()) or not _has_table(ApiToken):
        return []
    return [
        checks.Warning(
            f"The API token {name} is in use and expires at {ends_at:%Y-%m-%d %H:%M} UTC.",
            hint=f"`api_token rotate {name} --overlap 72` creates a new secret; the old one works meanwhile.",
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
            hint="Without it every process has its own breakers and rate limits.",
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
            hint=f"{hint} On a private network, declare that with sslmode=disable.",
            id="orderflow.E011",
        )


def _default_sslmode() -> str:
    """libpq's behaviour if the address does not set it: PGSSLMODE, or its own default."""
    defaults = {option.keyword: option.val for option in pq.Conninfo.get_defaults()}
    return (defaults[b"sslmode"] or b"prefer").decode()


def _adapters(complaint: Callable[[str], str]) -> Iterator[checks.CheckMessage]:
    for name in ADAPTERS:
        if why := complaint(getattr(settings, name)):
            yield checks.Error(f"{name.removeprefix('OUTBOX_')} cannot be imported: {why}", id="orderflow.E004")


def _import_error(path: str) -> str:
    """What an import of the path raises, if a glance at its module shows nothing."""
    if dotted_paths.complaint(path):
        return ""  # `check_settings` reports it
    try:
        import_string(path)
    except ImportError as error:
        return str(error)
    return ""


def _providers() -> Iterator[checks.CheckMessage]:
    for name, consequence in PROVIDERS.items():
        if not getattr(settings, name):
            yield checks.Warning(f"{name} is not set: {consequence}.", id="orderflow.W002")
    for name, (base, live) in ADDRESSES.items():
        if getattr(settings, name) and not getattr(settings, base):
            yield checks.Error(
                f"{name} is set and {base} is not: the address of the provider is unknown.",
                hint=f"Write {base}={live}, or the address of a sandbox.",
                id="orderflow.E012",
            )
    credentials = settings.FCM_CREDENTIALS_FILE
    if credentials and not Path(credentials).is_file():
        yield checks.Error(f"FCM_CREDENTIALS_FILE {credentials} does not exist.", id="orderflow.E005")


def _times() -> Iterator[checks.CheckMessage]:
    spans = {name: span_of_tries(task) for name, task in _consumers().items()}
    slowest = max(spans, key=lambda name: spans[name])
    needed = spans[slowest] + REPLAYABLE_FOR
    if dt.timedelta(days=settings.OUTBOX_RETENTION_DAYS) < needed:
        yield checks.Error(
            f"OUTBOX_RETENTION_DAYS is {settings.OUTBOX_RETENTION_DAYS}: the records of duplicates would be "
            "pruned while messages can still be replayed.",
            hint=f"{slowest} is tried for {_hours(spans[slowest])}, and people need time: keep messages for at "
            f"least {_hours(needed)}.",
            id="orderflow.E006",
        )
    for name in PAYING:
        if spans[name] > claims.KEY_WINDOW:
            yield checks.Error(
                f"{name} is tried for {_hours(spans[name])}, longer than the payment provider keeps a key.",
                hint=f"Let the waits of its policy end within {_hours(claims.KEY_WINDOW)}.",
                id="orderflow.E008",
            )
    # Connecting may take 2 more seconds; see orders.transitions.LEASE.
    if settings.PROVIDER_TIMEOUT + CONNECTING >= transitions.LEASE:
        yield checks.Error(
            f"PROVIDER_TIMEOUT_SECONDS is {settings.PROVIDER_TIMEOUT / dt.timedelta(seconds=1):g}.",
            hint=f"A call must end within a step's lease of {transitions.LEASE.seconds} seconds, of which "
            f"connecting may take {CONNECTING.seconds}.",
            id="orderflow.E007",
        )


def _rates() -> Iterator[checks.CheckMessage]:
    import limits  # workers do not need it

    for name in RATES:
        try:
            limits.parse_many(getattr(settings, name))
        except ValueError:
            yield checks.Error(
                f"{name} is {getattr(settings, name)!r}, which is not a rate.",
                hint="Write it as 10/minute; separate several rates by semicolons.",
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
            "TRUSTED_PROXIES is 0, so X-Forwarded-Proto is not trusted.",
            hint="Behind a proxy that ends TLS every request would be redirected to itself: set the number of "
            "proxies. Ignore this if gunicorn itself ends TLS.",
            id="orderflow.W006",
        )


def span_of_tries(task: ConsumerTask) -> dt.timedelta:
    """The time after its first failure in which a consumer may still retry by itself, outages not counted."""
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
