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

import logging
import threading
from typing import TYPE_CHECKING, Any

import psycopg
from celery import Task, concurrency
from django.db import close_old_connections, connections

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

NEEDED = "Install psycopg[pool]: without it, every thread of a worker keeps a database session."

logger = logging.getLogger(__name__)


class _Shared:
    """What the threads of this process share. `most` is 0 in processes whose tasks run in no threads."""

    most = 0
    pools: dict[str, SessionPool] = {}  # noqa: RUF012 - one per process, as Django's own


_mine = threading.local()


def begin(sender: Any, **_: Any) -> None:
    """Prepare for tasks in threads, if the worker that starts has a pool of threads."""
    if not is_threaded(sender.pool_cls) or settings.SESSION_POOL_SIZE < 1:
        return
    try:
        import psycopg_pool  # noqa: F401
    except ImportError:
        logger.warning(NEEDED)
        return
    _Shared.most = min(settings.SESSION_POOL_SIZE, int(sender.concurrency or settings.SESSION_POOL_SIZE))


def is_threaded(pool: Any) -> bool:
    """Return whether a pool of Celery, its class or its name, runs tasks in threads of one process."""
    found: Any = concurrency.get_implementation(pool)
    return any(kind.__module__ in THREADED for kind in found.__mro__)


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


def most_of_process() -> int:
    """Return how many sessions this worker may open: those of its pool, and one of its main loop."""
    return _Shared.most + 1 if _Shared.most else 0


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
