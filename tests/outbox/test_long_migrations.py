"""Migrations may take as long as a large table needs; other statements may not."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

BEFORE_INDEXES = "0007_replayed_for_older_code"


@pytest.fixture
def hurried(transactional_db, monkeypatch):
    """Limit every statement to a millisecond, which simulates 30 seconds for a table with millions of rows."""
    latest = [node for node in MigrationExecutor(connection).loader.graph.leaf_nodes() if node[0] == "outbox"]
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", "-c statement_timeout=1")
    connection.close()
    yield
    monkeypatch.undo()
    connection.close()
    MigrationExecutor(connection).migrate(latest)


def shown(name):
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        return cursor.fetchone()[0]


@pytest.mark.usefixtures("hurried")
def test_indexes_are_made_however_large_the_table_is():
    with pytest.raises(OperationalError, match="statement timeout"), connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(1)")
    connection.close()

    call_command("migrate", "outbox", BEFORE_INDEXES, verbosity=0)
    call_command("migrate", "outbox", verbosity=0)

    assert connection.settings_dict["OPTIONS"]["options"] == "-c statement_timeout=1"


@pytest.mark.django_db(transaction=True)
def test_a_lock_that_a_migration_waits_for_has_a_limit(monkeypatch):
    """All later requests wait behind it."""
    from django.core.management.commands import migrate

    seen = {}
    monkeypatch.setattr(
        migrate.Command,
        "handle",
        lambda *_, **__: seen.update({name: shown(name) for name in ("statement_timeout", "lock_timeout")}),
    )
    call_command("migrate", verbosity=0)

    assert seen == {"statement_timeout": "0", "lock_timeout": "30s"}
    assert shown("statement_timeout") == "30s"
