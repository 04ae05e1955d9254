"""
Is the process alive, can it take requests, and how is the rest?

`/livez` asks nobody; an orchestrator that restarted processes because a server behind them is away
would add harm. `/readyz` asks what every request needs: the database, migrated. The broker is not part
of it, since orders are taken without it. `/healthz` tells people everything.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

from celery import current_app
from django.contrib import admin
from django.db import Error as DatabaseError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache

from orderflow.shared_state import breakers, credentials
from orders.api import guard, problems
from orders.api.auth import token_of
from orders.api.problems import Problem
from outbox import periodic, status
from outbox.broker import inspection
from outbox.models import DeadLetter, OutboxMessage

OK, DEGRADED, FAILING = "ok", "degraded", "failing"

LATE = 60.0
"""Seconds that the oldest due message may have waited before the relay counts as lagging."""

MOST_COUNTED = 10_000
"""Counting stops here: the answer must come quickly when there are many."""

_migrated = False
_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Component:
    """How one part is, with what was measured."""

    state: str
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


@never_cache
def livez(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return JsonResponse({"status": OK})


@never_cache
def readyz(request: HttpRequest) -> HttpResponse:
    """The database answers and has all migrations."""
    try:
        _ask_database()
        if not _is_migrated():
            raise Problem("unavailable", "there are unapplied migrations", retry_after=5)
    except DatabaseError:
        _logger.warning("not ready: the database does not answer", exc_info=True)
        return problems.response(request, Problem("unavailable", "the database does not answer", retry_after=2))
    except Problem as problem:
        return problems.response(request, problem)
    return JsonResponse({"status": OK})


@never_cache
@guard.guarded
def healthz(request: HttpRequest) -> HttpResponse:
    """Every component; 503 only when orders cannot be taken or nothing moves."""
    if not (_database().state == FAILING or _may_look(request)):
        token_of(request)
    components = {name: check() for name, check in CHECKS.items()}
    states = {component.state for component in components.values()}
    worst = next(state for state in (FAILING, DEGRADED, OK) if state in states)
    body = {
        "status": worst,
        "components": {name: {"status": each.state} | each.facts for name, each in components.items()},
    }
    return JsonResponse(body, status=503 if worst == FAILING else 200)


def _may_look(request: HttpRequest) -> bool:
    return hasattr(request, "user") and admin.site.has_permission(request)


def _ask_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _is_migrated() -> bool:
    """Asked until it is so; this process's migrations do not become more."""
    global _migrated
    if not _migrated:
        executor = MigrationExecutor(connection)
        _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _migrated


def _database() -> Component:
    began = time.perf_counter()
    try:
        _ask_database()
    except DatabaseError:
        return Component(FAILING)
    return Component(OK, {"milliseconds": round(1000 * (time.perf_counter() - began), 1)})


def _broker() -> Component:
    """Away, it makes the system late, not unable: orders are taken and wait."""
    began = time.perf_counter()
    try:
        with current_app.connection_for_read() as link:
            link.ensure_connection(max_retries=1, interval_start=0, timeout=2)
        took = round(1000 * (time.perf_counter() - began), 1)
        wrong = inspection.wrong_keys()
    except Exception:
        _logger.warning("the broker does not answer", exc_info=True)
        return Component(DEGRADED)
    if wrong:
        return Component(DEGRADED, {"milliseconds": took, "wrong_keys": wrong})
    return Component(OK, {"milliseconds": took})


def _relay() -> Component:
    lag = status.oldest_due_seconds()
    return Component(DEGRADED if lag > LATE else OK, {"oldest_due_seconds": lag})


def _parked() -> Component:
    parked = OutboxMessage.objects.filter(status=OutboxMessage.Status.PARKED)[:MOST_COUNTED].count()
    return Component(DEGRADED if parked else OK, {"count": parked})


def _dead_letters() -> Component:
    dead_letters = DeadLetter.objects.open()[:MOST_COUNTED].count()
    return Component(DEGRADED if dead_letters else OK, {"open": dead_letters})


def _breakers() -> Component:
    found = breakers.standings()
    closed = all(standing["state"] == "closed" for standing in found.values())
    return Component(OK if closed else DEGRADED, found)


def _periodic_tasks() -> Component:
    """Drains and sweeps are the safety net: without them what a broker or a worker loses stays lost."""
    found = periodic.standings()
    late = any(standing.is_late for standing in found)
    return Component(DEGRADED if late else OK, {standing.name: str(standing) for standing in found})


def _credentials() -> Component:
    """Refused, a whole channel waits until somebody corrects them; nothing is lost meanwhile."""
    refused = credentials.refused()
    return Component(DEGRADED if refused else OK, dict(refused))


def _restore() -> Component:
    """What the database has forgotten is only known to the providers, until it is compared with theirs."""
    restore = status.restore()
    if restore is None:
        return Component(OK)
    return Component(OK if restore["is_compared"] else DEGRADED, restore)


def _if_database_answers(check: Callable[[], Component]) -> Callable[[], Component]:
    def checked() -> Component:
        try:
            return check()
        except DatabaseError:
            return Component(FAILING)

    return checked


CHECKS: dict[str, Callable[[], Component]] = {
    "database": _database,
    "broker": _broker,
    "relay": _if_database_answers(_relay),
    "parked": _if_database_answers(_parked),
    "dead_letters": _if_database_answers(_dead_letters),
    "breakers": _if_database_answers(_breakers),
    "periodic_tasks": _if_database_answers(_periodic_tasks),
    "credentials": _credentials,
    "restore": _if_database_answers(_restore),
}
