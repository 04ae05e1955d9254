"""The naive system's Celery application: with Celery's defaults, or tuned."""

from __future__ import annotations

from celery import Celery, signals

from benchmarks import environment
from orderflow import settings as project
from outbox.worker import sessions

app = Celery("naive", broker=project.BROKER_URL, set_as_current=False, include=["benchmarks.naive.tasks"])
app.conf.task_ignore_result = True
if project.BROKER_URL.startswith("redis"):
    app.conf.broker_transport = "kombu.transport.redis:Transport"  # the project's own transport replaces it
app.conf.broker_connection_retry_on_startup = True

if environment.IS_TUNED:
    # By default Celery's fix-up opens a database session per task.
    app.conf["CELERY_DB_REUSE_MAX"] = 10_000
    app.conf.worker_prefetch_multiplier = 16


@signals.worker_init.connect
def keep_sessions_unchecked(**_: object) -> None:
    """The project's check of kept sessions costs a round trip per task; naive systems have no such check."""
    signals.task_prerun.disconnect(sessions.check)
