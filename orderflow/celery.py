"""The Celery application."""

from __future__ import annotations

import os
import select
from typing import Any

import psycopg
from celery import Celery, Task, signals
from django.db import close_old_connections, connections

from outbox import inline, redis_transport

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orderflow.settings")

redis_transport.install()
app = Celery("orderflow")
app.config_from_object("celeryconfig")
app.autodiscover_tasks()


@signals.setup_logging.connect
def configure_logging(**_: object) -> None:
    """Keep Celery from installing its own handlers: the project's redact and format."""
    from orderflow import observability

    observability.configure_logging()


@signals.task_prerun.connect
def check_connections(task: Task, **_: object) -> None:
    """Kept sessions are looked at before each delivery, so a database restart harms none of them."""
    if inline.is_inline(task):
        return  # the step before it has just used the session
    close_old_connections()
    for kept in connections.all(initialized_only=True):
        # Django would ask the server. One that has ended a session has said so: there is something to read.
        # Then Django asks all the same, as it may be no more than news of a setting.
        if kept.connection is not None and not _has_something_to_say(kept.connection):
            kept.health_check_done = True  # type: ignore[attr-defined]


def _has_something_to_say(session: psycopg.Connection[Any]) -> bool:
    if session.closed:
        return True
    looking = select.poll()
    looking.register(session.fileno(), select.POLLIN)
    return bool(looking.poll(0))
