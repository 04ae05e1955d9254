"""
Refusal to start with settings that would cause trouble later: the errors of `manage.py check`.

Every long-running process runs this: the web server in `orderflow.wsgi`; workers (including the relay) and beat
through Celery's signals. Commands are checked by Django. No server is queried, so a database that is down
prevents no start, and warnings never do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from django.core import checks
from django.core.checks.registry import registry
from django.core.exceptions import ImproperlyConfigured

OF_COMMANDS = {"adapters", "admin", "commands", "staticfiles", "templates", "urls"}
"""
Checks that are left to `manage.py check`. They load all pages and the API, 14 MB, all adapters, 13 MB, and the
commands for migrations.
"""

OF_PAGES = {"rates"}
"""Checks that only the web server makes."""


def check(tags: Sequence[str] | None = None) -> None:
    """
    Run all checks, or those with one of the tags; never those that ask the database.

    Raises:
        ImproperlyConfigured: with every error that the checks find.
    """
    errors = [found for found in checks.run_checks(tags=tags) if found.is_serious() and not found.is_silenced()]
    if errors:
        raise ImproperlyConfigured("OrderFlow does not start:\n" + "\n".join(map(_as_line, errors)))


def check_or_exit(*, without: Collection[str] = ()) -> None:
    """
    Run the checks of a process at its start, and end the process after an error.

    Celery only logs exceptions of signal handlers.

    Raises:
        SystemExit: with the errors as its message.
    """
    tags = registry.tags_available() - OF_COMMANDS - {checks.Tags.database} - set(without)
    try:
        check(sorted(tags))
    except ImproperlyConfigured as wrong:
        raise SystemExit(str(wrong)) from None


def _as_line(found: checks.CheckMessage) -> str:
    subject = f"{found.obj}: " if found.obj else ""
    hint = f" {found.hint}" if found.hint else ""
    return f"- {subject}{found.msg}{hint} ({found.id})"
