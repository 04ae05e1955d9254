"""`manage.py migrate`"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from django.core.management.commands import migrate
from django.db import connections

UNHURRIED = "-c statement_timeout=0 -c lock_timeout=30000"
"""An index on a large table takes minutes, during which all other work continues. Waiting for a lock is
different: all other statements wait behind it, so a migration gives up after the same time as any other
statement."""


class Command(migrate.Command):
    help = "Create the tables, or bring them up to date."

    def handle(self, *args: Any, **options: Any) -> None:
        with _unhurried(connections[options["database"]]):
            super().handle(*args, **options)


@contextlib.contextmanager
def _unhurried(connection: Any) -> Iterator[None]:
    """Connect without a statement timeout, and restore it afterwards; inside a transaction nothing changes."""
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
