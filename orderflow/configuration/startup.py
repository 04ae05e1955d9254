"""
Refusing to start with settings that would hurt later: what `manage.py check` calls an error.

Each process that serves or works comes by here: the web server by `orderflow.wsgi`; workers, among them the
relay, and beat by Celery's signals. Commands are checked by Django. No server is asked, so a database that is
down keeps nothing from starting, and a warning never does.
"""

from __future__ import annotations

from django.core import checks
from django.core.exceptions import ImproperlyConfigured


def check() -> None:
    """
    Raises:
        ImproperlyConfigured: naming every error that the checks find.
    """
    errors = [found for found in checks.run_checks() if found.is_serious() and not found.is_silenced()]
    if errors:
        raise ImproperlyConfigured("OrderFlow does not start:\n" + "\n".join(map(_as_line, errors)))


def check_or_exit(**_: object) -> None:
    """
    The same for Celery, which logs what its signals raise and goes on; this ends the process.

    Raises:
        SystemExit: with the errors as its message.
    """
    try:
        check()
    except ImproperlyConfigured as wrong:
        raise SystemExit(str(wrong)) from None


def _as_line(found: checks.CheckMessage) -> str:
    subject = f"{found.obj}: " if found.obj else ""
    hint = f" {found.hint}" if found.hint else ""
    return f"- {subject}{found.msg}{hint} ({found.id})"
