"""
Sessions that threads share, and the moments at which a thread gives its own back.

A thread that waits for a provider needs no session, so 64 waiting calls share a few. `outbox.worker.sessions`
decides which threads take their sessions from a pool. All others keep theirs, and nothing here ends them.
"""

from __future__ import annotations

import dataclasses
import select
from typing import Any

import psycopg
from django.db import Error, connection, connections

from outbox import telemetry

POOL = "pool"
"""The option of Django's database settings that stands for a pool."""


def give_back() -> None:
    """
    Give this thread's sessions back to their pools; the next statement takes another one.

    A session within a transaction stays, and so does one that comes from no pool.
    """
    for each in connections.all(initialized_only=True):
        if each.connection is not None and not each.in_atomic_block and is_pooled(each):
            each.close()


def give_back_before_call(provider: str) -> None:
    """Give the sessions back for the time of a call to a provider. A call within a transaction is reported."""
    for each in connections.all(initialized_only=True):
        if any(not getattr(block, "_from_testcase", False) for block in each.atomic_blocks):
            telemetry.emit("provider.called_in_transaction", provider=provider)
    give_back()


def end() -> None:
    """
    End this thread's sessions outside of transactions, because the server has failed.

    A server that has become read-only, for example, keeps its sessions, and another task would take them.
    """
    for each in connections.all(initialized_only=True):
        if each.connection is not None and not each.in_atomic_block:
            try:
                each.connection.close()  # a pool takes back a closed one, too, and replaces it
                each.close()
            except Error:
                each.connection = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """The sessions of the database's server."""

    allowed: int
    """How many it allows those who are not superusers."""
    open: int
    """How many are open, for all databases and without the one that asks."""


def room() -> Room:
    """Ask the server how many sessions it allows, and how many are open."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
            " - coalesce(current_setting('reserved_connections', true)::int, 0),"
            " greatest(sum(numbackends) - 1, 0)::int FROM pg_stat_database"
        )
        allowed, others = cursor.fetchone()
    return Room(allowed=allowed, open=others)


def is_pooled(wrapper: Any) -> bool:
    """Return whether Django takes the sessions of this connection from a pool."""
    return bool((wrapper.settings_dict.get("OPTIONS") or {}).get(POOL))


def has_something_to_read(session: psycopg.Connection[Any]) -> bool:
    """Return whether the server has sent something unasked. Usually it has ended the session."""
    if session.closed:
        return True
    readable = select.poll()
    readable.register(session.fileno(), select.POLLIN)
    return bool(readable.poll(0))
