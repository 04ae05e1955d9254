"""`manage.py migrate`"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from django.core.management.commands import migrate
from django.db import connections

UNHURRIED = "-c statement_timeout=0 -c lock_timeout=30000"
"""An index on a large table takes minutes, during which everybody goes on. A lock that a migration waits for is
different: everybody else waits behind it, and so it gives up after as long as any other statement does."""


class Command(migrate.Command):
    help = "Create the tables, or bring them up to date."

    def handle(self, *args: Any, **options: Any) -> None:
        with _unhurried(connections[options["database"]]):
            super().handle(*args, **options)


@contextlib.contextmanager
def _unhurried(connection: Any) -> Iterator[None]:
    """Connect without a limit on statements, and as before afterwards; within a transaction, as ever."""
    if connection.in_atomic_block or "options" not in connection.settings_dict.get("OPTIONS", {}):
        yield
        return
    chosen = connection.settings_dict["OPTIONS"]
    before = chosen["options"]
    connection.close()
    chosen["options"] = f"{before} {UNHURRIED}"
    try:
        yield
    finally:
        chosen["options"] = before
        connection.close()
