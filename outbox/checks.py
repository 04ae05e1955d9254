"""
System checks of the outbox: its database, and the traps that the project's Celery application leaves open.

The traps are described in docs/traps.md. `outbox.install` closes all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from celery import Celery, current_app
from celery.exceptions import QueueNotFound
from django.conf import settings as django_settings
from django.core import checks

from outbox import schedule
from outbox.conf import settings
from outbox.worker import decompression, installation, liveness, sessions

INSTALL = "Call outbox.install(app) right after the Celery application is made"

STOCK_SCHEDULER = "celery.beat:PersistentScheduler"

UNGUARDED_TRANSPORT = {
    "redis": "an item that is no message ends a worker, and rediss:// does not verify the server",
    "amqp": "a task that no queue takes is lost without an error, and amqps:// does not verify the server",
}
"""What happens with kombu's own transports."""


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
def check_sessions(**_: Any) -> Iterator[checks.CheckMessage]:
    options = django_settings.DATABASES.get("default", {}).get("OPTIONS") or {}
    if options.get("pool"):
        yield checks.Warning(
            "All processes take their database sessions from a pool.",
            hint="Celery closes it around the tasks of a prefork pool, and the relay's listener sets something "
            "for its session that must not reach others. Remove OPTIONS['pool']: threads that run tasks share "
            "sessions anyway (OUTBOX_SESSION_POOL_SIZE).",
            id="outbox.W010",
        )
    if current_app.conf.worker_pool == installation.THREADS and not sessions.is_installed():
        yield checks.Warning(sessions.NEEDED, hint="pip install 'psycopg[pool]'", id="outbox.W011")


@checks.register("outbox")
def check_liveness_file(**_: Any) -> Iterator[checks.CheckMessage]:
    path = settings.LIVENESS_FILE
    if path and (reason := liveness.reason_against(path)):
        yield checks.Error(f"OUTBOX_LIVENESS_FILE {path} {reason}.", id="outbox.E003")


@checks.register("outbox")
def check_celery(**_: Any) -> Iterable[checks.CheckMessage]:
    return [*traps(current_app), *lost_routes(current_app)]


def lost_routes(app: Celery) -> Iterator[checks.CheckMessage]:
    """Consumers whose messages no queue would accept: they would wait until somebody corrects the route."""
    from outbox.worker.rounds import RoundTask  # models, which exist only once all apps are loaded

    for name, task in sorted(app.tasks.items()):
        if not isinstance(task, RoundTask):
            continue
        try:
            app.amqp.router.route({}, name)
        except QueueNotFound as error:
            yield checks.Error(
                f"The messages of {name} have no queue: {error.args[0]}.",
                hint="Name a queue of task_queues in its entry of task_routes, or add this one to task_queues.",
                id="outbox.E002",
            )


def traps(app: Any) -> Iterator[checks.CheckMessage]:
    """What the settings of a Celery application leave to luck."""
    for number, problem, hint in (*_of_settings(app), *_of_process(app)):
        yield checks.Warning(f"{problem}.", hint=f"{INSTALL}{hint}.", id=f"outbox.W{number:03}")


def _of_settings(app: Celery) -> Iterator[tuple[int, str, str]]:
    consumer = installation.DEFAULTS["worker_consumer"]
    if app.conf.worker_consumer != consumer:
        yield (
            2,
            "Workers use Celery's own consumer: a message that is not a task is lost, and may end the worker",
            f", or set worker_consumer = {consumer!r}",
        )
    scheduled = {entry["task"] for entry in (app.conf.beat_schedule or {}).values()}
    if missing := sorted({entry["task"] for entry in schedule.beat().values()} - scheduled):
        yield (
            3,
            f"beat does not ask for {', '.join(missing)}: what they do is not done",
            ", or add outbox.schedule.beat() to beat_schedule",
        )
    if app.conf.beat_scheduler == STOCK_SCHEDULER:
        yield (
            7,
            "beat keeps its schedule in a file that a crash can corrupt, and sends ticks that nobody takes",
            f", or set beat_scheduler = {installation.DEFAULTS['beat_scheduler']!r}",
        )
    if lacking := installation.missing_options(app):
        yield (
            8,
            f"broker_transport_options lack {', '.join(lacking)}: connections may hang, or lose messages",
            f", or add {lacking!r}",
        )


def _of_process(app: Any) -> Iterator[tuple[int, str, str]]:
    if not installation.is_guarded(app):
        kind = installation.kind_of_broker(app)
        yield 4, f"The broker is used by kombu's own transport: {UNGUARDED_TRANSPORT[kind]}", ""
    if not decompression.is_installed():
        yield 5, "Workers expand compressed bodies without a limit: a small message can fill the memory", ""
    if app.control_cls != installation.CONTROL:
        yield 6, "Workers carry out any control command: a malformed one ends them", ""
    if not installation.has_safe_threads():
        yield 9, "Workers with -P threads have no time limits, and a task that hangs keeps its thread", ""
