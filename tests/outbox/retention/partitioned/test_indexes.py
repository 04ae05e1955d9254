"""Indexes of a later version are created on a partitioned table as well, one partition after the other."""

from __future__ import annotations

from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection
from django.db.migrations.state import ProjectState

from outbox.retention import partitions
from tests.outbox.retention.partitioned.table import divide, rows

MIGRATION = import_module("outbox.migrations.0009_messages_are_found_by_more").Migration
NAMES = [operation.index.name for operation in MIGRATION.operations]


def valid_indexes() -> dict[str, bool]:
    found = rows(
        "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE indrelid = %s::regclass AND relname = ANY(%s)",
        partitions.TABLE,
        NAMES,
    )
    return dict(found)


@pytest.mark.parametrize("is_divided", [False, True], ids=["in one piece", "divided"])
def test_an_index_is_made_and_made_again_after_an_interruption(is_divided):
    if is_divided:
        divide()
    state = ProjectState.from_apps(apps)
    for _ in range(2):
        for operation in MIGRATION.operations:
            with connection.schema_editor(atomic=False) as editor:
                operation.database_forwards("outbox", editor, state, state)
        assert valid_indexes() == dict.fromkeys(NAMES, True)

    for operation in MIGRATION.operations:
        with connection.schema_editor(atomic=False) as editor:
            operation.database_backwards("outbox", editor, state, state)
    assert valid_indexes() == {}
    for operation in MIGRATION.operations:
        with connection.schema_editor(atomic=False) as editor:
            operation.database_forwards("outbox", editor, state, state)
    assert valid_indexes() == dict.fromkeys(NAMES, True)
