"""
The database sessions of a worker's tasks.

A process of a prefork pool keeps one session between tasks. Celery's Django fix-up closes it around every task
unless `CELERY_DB_REUSE_MAX` says how many tasks one may serve, which triples what a worker does in a second. A
kept session may have ended since its last task, so it is checked, without a round trip.

Threads that run tasks take their sessions from a pool instead, whatever Django's settings say. They give them
back before each call of a provider (see `outbox.resilience.breaker`) and after each task. All other threads of
a worker, such as its main loop and the relay's listener, have sessions of their own: they may set something for
the whole session, and they must not wait for tasks.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

import psycopg
from celery import Task, concurrency
from django.db import Error, close_old_connections, connection, connections

from outbox.conf import settings
from outbox.database import sessions
from outbox.worker import inline

if TYPE_CHECKING:
    from outbox.database.session_pool import SessionPool

WAIT = 5.0
"""Seconds that a task waits for a session. Then the database counts as down, and the message comes back: long
before the time limit of a task."""

RECONNECTED_FOR = 3.0
"""Seconds during which the pool tries again to open a session, with growing waits. After that it tries when a
task wants one, so that tasks do not wait long for a server that has come back."""

THREADED = {"celery.concurrency.thread", "outbox.worker.threads"}
"""The modules of pools that run tasks in threads."""

SOLO = {"celery.concurrency.solo"}
"""The module of the pool that runs tasks in the main loop."""

OF_LISTENER = 2
"""The sessions of a relay's listener: one to be notified on, one to drain."""

NEEDED = "psycopg_pool is not installed: every thread of a worker keeps a database session."

logger = logging.getLogger(__name__)


class _Shared:
    """What the threads of this process share. `most` is 0 in processes whose tasks run in no threads."""

    most = 0
    pools: dict[str, SessionPool] = {}  # noqa: RUF012 - one per process, as Django's own


_mine = threading.local()


def begin(sender: Any, **_: Any) -> None:
    """Prepare for tasks in threads, if the worker that starts has a pool of threads; say what is too few."""
    threads = _size(sender.concurrency)
    if is_threaded(sender.pool_cls) and settings.SESSION_POOL_SIZE > 0:
        if is_installed():
            _Shared.most = min(settings.SESSION_POOL_SIZE, threads)
        else:
            logger.warning(NEEDED)
    _warn_of_too_few(most_of(sender.pool_cls, threads, has_relay=listens(sender.app)))


def is_installed() -> bool:
    """Return whether threads can share sessions."""
    return importlib.util.find_spec("psycopg_pool") is not None


def listens(app: Any) -> bool:
    """Return whether a worker of this process also listens for commits."""
    return settings.RELAY_QUEUE in app.amqp.queues.consume_from


def most_of(pool: Any, size: int, *, has_relay: bool = False) -> int:
    """
    Return how many database sessions a worker may open.

    Threads share the pool's, and the main loop opens one to write a dead letter. Each child of a prefork pool
    has one, and a solo pool one in all. A relay's listener adds two.
    """
    if is_threaded(pool):
        shared = min(settings.SESSION_POOL_SIZE, size) if is_installed() else 0
        tasks = (shared or size) + 1
    else:
        tasks = 1 if is_solo(pool) else size
    return tasks + (OF_LISTENER if has_relay else 0)


def _warn_of_too_few(wanted: int) -> None:
    """Compare what this worker may open with what the server has left. A database that is down says nothing."""
    if connection.in_atomic_block:  # a test that starts a worker in its own process
        return
    try:
        room = sessions.room()
    except Error:
        return
    finally:
        connections.close_all()  # children are forked from this process
    if room.open + wanted > room.allowed:
        logger.error(
            "This worker may open %d database sessions, but %d of the %d that the server allows are in use. "
            "Tasks will wait for sessions: start fewer processes, lower OUTBOX_SESSION_POOL_SIZE (now %d, for "
            "threads), raise max_connections, or put PgBouncer in front of the server.",
            wanted,
            room.open,
            room.allowed,
            settings.SESSION_POOL_SIZE,
        )


def _size(concurrency: Any) -> int:
    """The size of a pool; one that Celery has not decided yet is that of the machine's processors."""
    return concurrency if isinstance(concurrency, int) and concurrency > 0 else os.cpu_count() or 1


def is_threaded(pool: Any) -> bool:
    """Return whether a pool of Celery, its class or its name, runs tasks in threads of one process."""
    return _is(pool, THREADED)


def is_solo(pool: Any) -> bool:
    """Return whether a pool of Celery, its class or its name, runs tasks in the worker's main loop."""
    return _is(pool, SOLO)


def _is(pool: Any, modules: set[str]) -> bool:
    found: Any = concurrency.get_implementation(pool)
    return any(kind.__module__ in modules for kind in found.__mro__)


def check(task: Task, **_: Any) -> None:
    """
    Check kept sessions before each delivery, so that a restart of the database harms none of them.

    A session of a pool is checked when it is taken.
    """
    if _Shared.most and not hasattr(_mine, "is_pooled"):
        _take_from_pools()
        _mine.is_pooled = True
    if inline.is_inline(task):
        return  # the task before it has just used the session
    if _Shared.most:
        _give_back_all()  # a time limit may have interrupted `end_task`
        return
    close_old_connections()
    for kept in connections.all(initialized_only=True):
        # Django would ask the server. One that has ended a session has said so: there is something to read.
        # Then Django asks all the same, as it may be no more than a NOTIFY.
        if isinstance(kept.connection, psycopg.Connection) and not sessions.has_something_to_read(
            kept.connection
        ):
            kept.health_check_done = True  # type: ignore[attr-defined]


def end_task(task: Task, **_: Any) -> None:
    """Give the sessions of a thread back after its task and all its hooks."""
    if inline.is_inline(task):
        sessions.give_back()
    else:
        _give_back_all()


def free() -> int | None:
    """Return how many sessions no thread has or waits for; None if threads share none."""
    if not _Shared.most:
        return None
    return min((pool.free() for pool in tuple(_Shared.pools.values())), default=_Shared.most)


def _give_back_all() -> None:
    """Give back the sessions of this thread, also those that something else than Django's connections has."""
    sessions.give_back()
    for pool in list(_Shared.pools.values()):
        pool.collect_mine()


def end(**_: Any) -> None:
    """Close the pools when the worker ends."""
    for alias, pool in list(_Shared.pools.items()):
        pool.close(timeout=1)
        _Shared.pools.pop(alias, None)


def _take_from_pools() -> None:
    """Have the current thread take its sessions from pools. Django's settings stay as they are for others."""
    for wrapper in connections.all():
        if wrapper.vendor != "postgresql" or wrapper.in_atomic_block:
            continue
        wrapper.close()
        options = wrapper.settings_dict.get("OPTIONS") or {}
        given = options.get(sessions.POOL)
        pool = {
            "min_size": 1,
            "max_size": _Shared.most,
            "timeout": WAIT,
            "reconnect_timeout": RECONNECTED_FOR,
            "name": f"sessions of {wrapper.alias}",
            **(given if isinstance(given, dict) else {}),
        }
        wrapper.settings_dict = {
            **wrapper.settings_dict,
            "CONN_MAX_AGE": 0,
            "CONN_HEALTH_CHECKS": False,
            "OPTIONS": {**options, sessions.POOL: pool},
        }
        _make_pool(wrapper, pool)


def _make_pool(wrapper: Any, options: dict[str, Any]) -> None:
    """Make the pool of a database before Django makes a plain one."""
    from outbox.database.session_pool import SessionPool

    with _making:
        if wrapper.alias not in _Shared.pools:
            made = SessionPool(
                kwargs={**wrapper.get_connection_params(), "autocommit": True},
                configure=wrapper._configure_connection,
                **options,
            )
            _Shared.pools[wrapper.alias] = wrapper._connection_pools[wrapper.alias] = made


_making = threading.Lock()
