"""
Refusal to start with settings that would cause trouble later: the errors of `manage.py check`.

Every long-running process runs this: the web server in `orderflow.wsgi`; workers (including the relay) and beat
through Celery's signals. Commands are checked by Django. No server is queried, so a database that is down
prevents no start, and warnings never do.
"""

from __future__ import annotations

from django.core import checks
from django.core.exceptions import ImproperlyConfigured


def check() -> None:
    """
    Raises:
        ImproperlyConfigured: with every error that the checks find.
    """
    errors = [found for found in checks.run_checks() if found.is_serious() and not found.is_silenced()]
    if errors:
        raise ImproperlyConfigured("OrderFlow does not start:\n" + "\n".join(map(_as_line, errors)))


def check_or_exit(**_: object) -> None:
    """
    The same for Celery, which only logs exceptions of signal handlers; this ends the process.

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
