"""
Health checks: is the process alive, can it serve requests, and what is the state of the rest?

`/livez` queries nothing: if an orchestrator restarted processes because a server behind them is down, it would
only add damage. `/readyz` checks what every request needs: the database, migrated. The broker is not part of
it, because orders are accepted without it. `/healthz` reports everything to people.
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
from outbox import periodic, processes, status
from outbox.broker import inspection
from outbox.models import DeadLetter, OutboxMessage

OK, DEGRADED, FAILING = "ok", "degraded", "failing"

LATE = 60.0
"""The relay counts as lagging if the oldest due message has waited for more seconds than this."""

MOST_COUNTED = 10_000
"""Counting stops here, so that the response is fast even if there are many."""

_migrated = False
_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Component:
    """The state of one component, with measured values."""

    state: str
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


@never_cache
def livez(request: HttpRequest) -> HttpResponse:
    """The process responds."""
    return JsonResponse({"status": OK})


@never_cache
def readyz(request: HttpRequest) -> HttpResponse:
    """The database responds and has all migrations."""
    try:
        _query_database()
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
    """Every component; 503 only if orders cannot be accepted or no work makes progress."""
    if not (_database().state == FAILING or _may_see_details(request)):
        token_of(request)
    components = {name: check() for name, check in CHECKS.items()}
    states = {component.state for component in components.values()}
    worst = next(state for state in (FAILING, DEGRADED, OK) if state in states)
    body = {
        "status": worst,
        "components": {name: {"status": each.state} | each.facts for name, each in components.items()},
    }
    return JsonResponse(body, status=503 if worst == FAILING else 200)


def _may_see_details(request: HttpRequest) -> bool:
    return hasattr(request, "user") and admin.site.has_permission(request)


def _query_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _is_migrated() -> bool:
    """Query until it is true; after that this process needs no more migrations."""
    global _migrated
    if not _migrated:
        executor = MigrationExecutor(connection)
        _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _migrated


def _database() -> Component:
    began = time.perf_counter()
    try:
        _query_database()
    except DatabaseError:
        return Component(FAILING)
    return Component(OK, {"milliseconds": round(1000 * (time.perf_counter() - began), 1)})


def _broker() -> Component:
    """An outage delays work but does not make the system unable: orders are accepted and wait."""
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
    found = breakers.states()
    closed = all(standing["state"] == "closed" for standing in found.values())
    return Component(OK if closed else DEGRADED, found)


def _periodic_tasks() -> Component:
    """Drains and sweeps are the safety net: without them, work lost by a broker or worker stays lost."""
    found = periodic.standings()
    late = any(standing.is_late for standing in found)
    return Component(DEGRADED if late else OK, {standing.name: str(standing) for standing in found})


def _processes() -> Component:
    """A lost process delays the work of its pool; one that has ended in order is not missed."""
    found = processes.standings()
    gone = any(standing.gone for standing in found)
    facts = {f"{standing.role} {standing.pool}": str(standing) for standing in found}
    return Component(DEGRADED if gone else OK, facts)


def _credentials() -> Component:
    """If they are refused, a whole channel waits until they are corrected; nothing is lost meanwhile."""
    refused = credentials.refused()
    return Component(DEGRADED if refused else OK, dict(refused))


def _restore() -> Component:
    """After a restore, only the providers know what the database has lost, until both are compared."""
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
    "processes": _if_database_answers(_processes),
    "credentials": _credentials,
    "restore": _if_database_answers(_restore),
}
