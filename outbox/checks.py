"""
System checks of the outbox: the database, and Celery settings that can lose messages.

docs/traps.md describes each trap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from celery import current_app
from django.conf import settings as django_settings
from django.core import checks

from outbox import schedule

CONSUMER = "outbox.worker.consumer:GuardedConsumer"

SETTINGS = {
    "task_acks_late": "a worker that dies loses its current task until the sweep delivers the message again",
    "task_reject_on_worker_lost": "a task whose process dies is dropped until the sweep delivers it again",
}
"""Celery settings that should be true, and what happens otherwise."""


@checks.register("outbox")
def check_database(**_: Any) -> Iterator[checks.CheckMessage]:
    engine = django_settings.DATABASES.get("default", {}).get("ENGINE", "")
    if "postgresql" not in engine and "postgis" not in engine:
        yield checks.Error(
            "The outbox needs PostgreSQL.",
            hint=f"DATABASES['default']['ENGINE'] is {engine!r}; use django.db.backends.postgresql.",
            id="outbox.E001",
        )


@checks.register("outbox")
def check_celery(**_: Any) -> Iterable[checks.CheckMessage]:
    return list(traps(current_app))


def traps(app: Any) -> Iterator[checks.CheckMessage]:
    """Warnings about the settings of a Celery application that can lose messages."""
    for name, consequence in SETTINGS.items():
        if not app.conf[name]:
            yield checks.Warning(f"{name} is off: {consequence}.", hint=f"Set {name} = True.", id="outbox.W001")
    if app.conf.worker_consumer != CONSUMER:
        yield checks.Warning(
            "Workers use Celery's own consumer: a message that is not a task is lost and may stop the worker.",
            hint=f"Set worker_consumer = {CONSUMER!r}.",
            id="outbox.W002",
        )
    scheduled = {entry["task"] for entry in (app.conf.beat_schedule or {}).values()}
    if missing := sorted({entry["task"] for entry in schedule.beat().values()} - scheduled):
        yield checks.Warning(
            f"beat does not schedule {', '.join(missing)}, so these tasks never run.",
            hint="Add outbox.schedule.beat() to beat_schedule.",
            id="outbox.W003",
        )
