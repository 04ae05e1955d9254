"""Additional databases on the test server."""

from __future__ import annotations

import psycopg
from psycopg import sql

from tests.processes import eventually


def drop(server: psycopg.Connection, name: str) -> None:
    """
    Drop a database, if it exists, and end its sessions.

    A user who is not a superuser cannot end an autovacuum in it, and is refused until it has finished.
    """

    def is_dropped():
        try:
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True

    eventually(is_dropped, f"the database {name} dropped")


def end_sessions(server: psycopg.Connection, name: str) -> None:
    """End all sessions in a database, such as those of threads of earlier tests."""

    def are_gone():
        ended = server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND backend_type = 'client backend'",
            [name],
        )
        return not ended.fetchall()

    eventually(are_gone, f"no session in {name}")
