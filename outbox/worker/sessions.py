"""
Database sessions that a worker keeps between tasks, checked without a round trip.

Celery's Django fix-up closes the session around every task unless `CELERY_DB_REUSE_MAX` says how many tasks one
may serve, which triples what a worker does in a second. A kept session may have ended since its last task.
"""

from __future__ import annotations

import select
from typing import Any

import psycopg
from celery import Task
from django.db import close_old_connections, connections

from outbox.worker import inline


def check(task: Task, **_: Any) -> None:
    """Check kept sessions before each delivery, so that a restart of the database harms none of them."""
    if inline.is_inline(task):
        return  # the task before it has just used the session
    close_old_connections()
    for kept in connections.all(initialized_only=True):
        # Django would ask the server. One that has ended a session has said so: there is something to read.
        # Then Django asks all the same, as it may be no more than a NOTIFY.
        if isinstance(kept.connection, psycopg.Connection) and not _has_something_to_read(kept.connection):
            kept.health_check_done = True  # type: ignore[attr-defined]


def _has_something_to_read(session: psycopg.Connection[Any]) -> bool:
    if session.closed:
        return True
    readable = select.poll()
    readable.register(session.fileno(), select.POLLIN)
    return bool(readable.poll(0))
