"""The Celery application."""

from __future__ import annotations

import os

from celery import Celery, Task, signals
from django.db import close_old_connections

from outbox import inline

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orderflow.settings")

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
    """Kept sessions are health-checked before each delivery, so a database restart harms none of them."""
    if not inline.is_inline(task):  # else the step before it has just used the session
        close_old_connections()
