"""Backups of the test's database, as server-side copies, and providers that forget their keys."""

from __future__ import annotations

import contextlib
import sqlite3

import psycopg
from django.db import connection, connections
from psycopg import sql

from outbox.verification import restores
from tests import databases


class Backup:
    """A copy of the database. Restoring it ends all connections, as a real restore does."""

    def __init__(self):
        self.name = connection.settings_dict["NAME"]
        self.copy = f"{self.name}_backup"

    def take(self):
        """Copy the database; its connections end."""
        restores.check()
        self._replace(self.copy, by=self.name)

    def restore(self):
        """Replace the database with the copy."""
        self._replace(self.name, by=self.copy)

    def drop(self):
        """Delete the copy."""
        with _server() as server:
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(self.copy)))

    def _replace(self, name, *, by):
        connections.close_all()
        with _server() as server:
            databases.drop(server, name)
            databases.end_sessions(server, by)
            names = [sql.Identifier(name), sql.Identifier(by)]
            server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))


def empty_database():
    """Replace the test's database with an empty one; connections end."""
    name = connection.settings_dict["NAME"]
    connections.close_all()
    with _server() as server:
        databases.drop(server, name)
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))


@contextlib.contextmanager
def _server():
    settings = connection.settings_dict
    with psycopg.connect(
        host=settings["HOST"],
        port=settings["PORT"],
        user=settings["USER"],
        password=settings["PASSWORD"],
        dbname="postgres",
        autocommit=True,
    ) as server:
        yield server


def forget_keys(*providers):
    """Let providers forget every idempotency key, as they do after a day."""
    for provider in providers:
        with contextlib.closing(sqlite3.connect(provider.data_dir / f"{provider.name}.sqlite3")) as ledger:
            ledger.execute("DELETE FROM keys")
            ledger.commit()
