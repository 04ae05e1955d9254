"""The Celery application."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from celery import Celery, signals
from django.conf import settings

import outbox
from outbox.worker import beat

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orderflow.settings")
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")  # see `refuse_bad_settings`


class Beat(beat.Program):
    """A beat that prints nothing beside logs that are for machines."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.quiet: bool = settings.LOG_FORMAT == "json" or self.quiet


app = Celery("orderflow")
outbox.install(app)
app.Beat = app.subclass_with_self(Beat)  # type: ignore[misc]
app.set_default()  # of all threads: the current app is a thread-local
app.config_from_object("celeryconfig")
app.autodiscover_tasks()


@signals.setup_logging.connect
def configure_logging(**_: object) -> None:
    """Keep Celery from installing its own handlers: the project's redact and format."""
    from orderflow.observability import logs

    logs.configure_logging()


@signals.celeryd_init.connect
def log_only(instance: Any, **_: object) -> None:
    """Have a worker print nothing beside its logs where these are for machines."""
    configure_logging()
    if settings.LOG_FORMAT == "json":
        from celery.apps import worker

        instance.quiet = True
        program: Any = worker
        program.safe_say = _say_in_json  # what its handlers of signals say, which must not use `logging`


def _say_in_json(text: str, f: Any = sys.__stderr__) -> None:
    line = {"event": text.strip(), "level": "warning", "logger": "celery.apps.worker"}
    os.write(f.fileno(), (json.dumps(line) + "\n").encode())


@signals.celeryd_init.connect
@signals.beat_init.connect
def refuse_bad_settings(**_: object) -> None:
    """Celery's own fix-up runs Django's checks too, and looks at no result of theirs."""
    from orderflow.configuration import startup

    startup.check_or_exit(without=startup.OF_PAGES)
