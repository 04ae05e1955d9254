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
