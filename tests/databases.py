"""Databases beside the test's own, on the server of the tests."""

from __future__ import annotations

import psycopg
from psycopg import sql

from tests.processes import eventually


def drop(server: psycopg.Connection, name: str) -> None:
    """
    Drop a database, if it is there, and end its sessions.

    An account that is no superuser may not end an autovacuum in it, and is refused until that is done.
    """

    def is_dropped():
        try:
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True

    eventually(is_dropped, f"the database {name} dropped")
