"""The Celery application."""

from __future__ import annotations

import functools
import json
import os
import select
import sys
from typing import Any

import psycopg
from celery import Celery, Task, signals
from django.conf import settings
from django.db import close_old_connections, connections

from outbox.broker import amqp_transport, redis_transport
from outbox.worker import control, decompression, inline

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orderflow.settings")
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")  # see `refuse_bad_settings`


class Application(Celery):
    """
    Celery with a beat that can be stopped at any moment, and that prints nothing besides logs in JSON.

    Its logical clocks cannot be set by others to a time after which no event can be sent.
    """

    control_cls = "outbox.worker.control:Control"

    def on_init(self) -> None:
        self.clock = control.BoundedClock()

    @functools.cached_property
    def Beat(self) -> Any:
        from celery.apps import beat as program

        from outbox.worker import beat

        class Beat(program.Beat):
            app = self

            def __init__(self, **options: Any) -> None:
                super().__init__(**options)
                self.quiet: bool = settings.LOG_FORMAT == "json" or self.quiet

            def install_sync_handler(self, service: Any) -> None:
                beat.end_surely(service)  # before its scheduler is created; `beat_init` is sent after that

        return Beat


redis_transport.install()
amqp_transport.install()
decompression.install()
app = Application("orderflow")
app.config_from_object("celeryconfig")
app.autodiscover_tasks()


@signals.setup_logging.connect
def configure_logging(**_: object) -> None:
    """Keep Celery from installing its own handlers: the project's handlers redact and format."""
    from orderflow.observability import logs

    logs.configure_logging()


@signals.celeryd_init.connect
def log_only(instance: Any, **_: object) -> None:
    """Keep a worker from printing besides its logs when these are in JSON."""
    configure_logging()
    if settings.LOG_FORMAT == "json":
        from celery.apps import worker

        instance.quiet = True
        program: Any = worker
        program.safe_say = _say_in_json  # the output of its signal handlers, which must not use `logging`


def _say_in_json(text: str, f: Any = sys.__stderr__) -> None:
    line = {"event": text.strip(), "level": "warning", "logger": "celery.apps.worker"}
    os.write(f.fileno(), (json.dumps(line) + "\n").encode())


@signals.celeryd_init.connect
@signals.beat_init.connect
def refuse_bad_settings(**_: object) -> None:
    """Celery's own fix-up runs Django's checks too, but ignores their results."""
    from orderflow.configuration import startup

    startup.check_or_exit()


@signals.task_prerun.connect
def check_connections(task: Task, **_: object) -> None:
    """Check kept sessions before each delivery, so that a database restart breaks none of them."""
    if inline.is_inline(task):
        return  # the previous step has just used the session
    close_old_connections()
    for kept in connections.all(initialized_only=True):
        # Django would query the server. If the server has ended a session, data can be read from it. Then
        # Django's query still runs, because the data may only report a changed setting.
        if kept.connection is not None and not _has_something_to_say(kept.connection):
            kept.health_check_done = True  # type: ignore[attr-defined]


def _has_something_to_say(session: psycopg.Connection[Any]) -> bool:
    if session.closed:
        return True
    looking = select.poll()
    looking.register(session.fileno(), select.POLLIN)
    return bool(looking.poll(0))
