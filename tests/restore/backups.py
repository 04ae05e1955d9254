"""Backups of the test's own database, as files that the server copies, and providers that forget their keys."""

from __future__ import annotations

import contextlib
import sqlite3

import psycopg
from django.db import connection, connections
from psycopg import sql

from outbox.verification import restores
from tests import databases


class Backup:
    """What the database was when it was taken. Restoring it ends all sessions, as a real one does."""

    def __init__(self):
        self.name = connection.settings_dict["NAME"]
        self.copy = f"{self.name}_backup"

    def take(self):
        """Copy the database away; its sessions end."""
        restores.check()
        self._replace(self.copy, by=self.name)

    def restore(self):
        """Put the copy in the database's place."""
        self._replace(self.name, by=self.copy)

    def drop(self):
        """Take the copy away."""
        with _server() as server:
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(self.copy)))

    def _replace(self, name, *, by):
        connections.close_all()
        with _server() as server:
            databases.drop(server, name)
            names = [sql.Identifier(name), sql.Identifier(by)]
            server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))


def empty_database():
    """Put an empty database in the place of the test's own; sessions end."""
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
