"""
Refusal to start with settings that would cause trouble later: the errors of `manage.py check`.

Every long-running process runs this: the web server in `orderflow.wsgi`; workers (including the relay) and beat
through Celery's signals. Commands are checked by Django. No server is queried, so a database that is down
prevents no start, and warnings never do.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.core import checks
from django.core.checks.registry import registry
from django.core.exceptions import ImproperlyConfigured

OF_PAGES = {"admin", "staticfiles", "templates", "urls"}
"""Checks of what only a web server has. They load all pages and the API: 14 MB that a worker can do without."""


def check(tags: Sequence[str] | None = None) -> None:
    """
    Run all checks, or those with one of the tags; never those that ask the database.

    Raises:
        ImproperlyConfigured: with every error that the checks find.
    """
    errors = [found for found in checks.run_checks(tags=tags) if found.is_serious() and not found.is_silenced()]
    if errors:
        raise ImproperlyConfigured("OrderFlow does not start:\n" + "\n".join(map(_as_line, errors)))


def check_or_exit(**_: object) -> None:
    """
    The same for Celery, which only logs exceptions of signal handlers; this ends the process.

    Workers and beat have no pages, and do not check any.

    Raises:
        SystemExit: with the errors as its message.
    """
    tags = registry.tags_available() - OF_PAGES - {checks.Tags.database}
    try:
        check(sorted(tags))
    except ImproperlyConfigured as wrong:
        raise SystemExit(str(wrong)) from None


def _as_line(found: checks.CheckMessage) -> str:
    subject = f"{found.obj}: " if found.obj else ""
    hint = f" {found.hint}" if found.hint else ""
    return f"- {subject}{found.msg}{hint} ({found.id})"
