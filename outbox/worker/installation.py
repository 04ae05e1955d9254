"""
What a Celery application gets by `outbox.install(app)`: the guards of `outbox.worker` and `outbox.broker`.

The project's own settings always win, and tasks of the project keep theirs: what only a consumer of messages
needs, such as late acknowledgement, `ConsumerTask` sets for itself. `outbox.checks` names what is left open.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
from collections.abc import Mapping
from typing import Any

from celery import Celery, concurrency, signals
from kombu.transport import TRANSPORT_ALIASES

from outbox import bulkheads, schedule
from outbox.broker import amqp_transport
from outbox.conf import settings
from outbox.worker import beat, control, decompression, liveness, sessions

DEFAULTS = {
    "worker_consumer": "outbox.worker.consumer:GuardedConsumer",
    "beat_scheduler": "outbox.worker.beat:Scheduler",
}
"""Settings of Celery that have another default."""

TRANSPORT_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "redis": {
        # A connection can hang half-open: a worker stays deaf for minutes, and a publish waits for ever.
        "socket_timeout": 3,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 2,
        # Look for messages of dead workers every second; by default it takes 100 seconds.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 5,
    },
    "amqp": {
        # A publish counts only once the broker has said so.
        "confirm_publish": True,
        # A broker that has fallen silent never confirms.
        "read_timeout": 3,
        "write_timeout": 3,
    },
}
"""Options of a broker's connections that have another default, by the kind of broker. In seconds."""

CONTROL, DISPATCHER = "outbox.worker.control:Control", "outbox.worker.events:Dispatcher"

THREADS, POOL = "threads", "outbox.worker.threads:TaskPool"
"""The name of Celery's pool of threads, and the pool that takes its place."""

_aliases: dict[str, str] = concurrency.ALIASES  # type: ignore[attr-defined]


def install(app: Celery) -> None:
    """Guard an application, see `outbox.install`."""
    if importlib.util.find_spec("redis"):
        from outbox.broker import redis_transport

        redis_transport.install()
    amqp_transport.install()
    decompression.install()
    _aliases[THREADS] = POOL
    application: Any = app
    if application.control_cls == Celery.control_cls:  # type: ignore[attr-defined]
        application.control_cls = CONTROL
        vars(application).pop("control", None)
    application.clock = control.BoundedClock()
    application.events.dispatcher_cls = DISPATCHER
    application.Beat = application.subclass_with_self(beat.Program)
    signals.worker_init.connect(sessions.begin)
    signals.worker_init.connect(liveness.begin)
    application.Worker = functools.partial(_make_worker, application)
    signals.task_prerun.connect(sessions.check)
    signals.task_postrun.connect(sessions.end_task)
    signals.worker_shutdown.connect(sessions.end)
    signals.worker_ready.connect(bulkheads.divide_pool)
    signals.worker_init.connect(freeze)  # before it forks: a later collection would copy what children share
    signals.worker_ready.connect(freeze)
    signals.worker_process_init.connect(_freeze_inherited)
    if application.configured:
        _complete(app)
    else:
        application.on_after_configure.connect(_complete)


def freeze(**_: Any) -> None:
    """Take everything that was loaded at the start out of the garbage collector's sight: it stays."""
    gc.collect()
    gc.freeze()


def _freeze_inherited(**_: Any) -> None:
    gc.freeze()  # a collection would copy the memory that a child shares with its parent


def _make_worker(app: Any, *args: Any, **options: Any) -> Any:
    """Make the worker program. It is imported only by workers."""
    from outbox.worker import program

    return app.subclass_with_self(program.Program)(*args, **options)


def _complete(sender: Celery, **_: Any) -> None:
    """Give settings another default, and add to those that are mappings what they lack."""
    conf: Any = sender.conf
    for name, value in DEFAULTS.items():
        if not _is_set(conf, name):
            _set(conf, name, value)
    entries = schedule.beat(queue=settings.RELAY_QUEUE, jobs=settings.JOBS_QUEUE or conf.task_default_queue)
    _set(conf, "beat_schedule", entries | dict(conf.beat_schedule or {}))
    options = missing_options(sender) | dict(conf.broker_transport_options or {})
    _set(conf, "broker_transport_options", options)


def _is_set(conf: Any, name: str) -> bool:
    """Whether the project has set it, also under a prefix. Celery's `add_defaults` would win over a project."""
    own = conf.without_defaults()
    return name in own or f"{conf.prefix or ''}{name}".upper() in own


def _set(conf: Any, name: str, value: Any) -> None:
    """Set a value also under the project's prefix, where Celery 5.5 and 5.6 look first."""
    conf[name] = value
    if conf.prefix:
        conf[f"{conf.prefix}{name}".upper()] = value


def missing_options(app: Celery) -> dict[str, Any]:
    """The options of `TRANSPORT_OPTIONS` that the application's broker should have and lacks."""
    known = app.conf.broker_transport_options or {}
    wanted = TRANSPORT_OPTIONS.get(kind_of_broker(app), {})
    return {name: value for name, value in wanted.items() if name not in known}


def kind_of_broker(app: Celery) -> str:
    """`redis`, `amqp`, or another kind, as the application's broker URL has it."""
    scheme = str(app.conf.broker_write_url or "amqp://").partition(":")[0].partition("+")[0]
    return {"rediss": "redis", "amqps": "amqp", "pyamqp": "amqp"}.get(scheme, scheme)


def is_guarded(app: Celery) -> bool:
    """Whether this process connects to the application's broker by a transport of `outbox.broker`."""
    kind = kind_of_broker(app)
    return kind not in TRANSPORT_OPTIONS or str(TRANSPORT_ALIASES[kind]).startswith("outbox.")


def has_safe_threads() -> bool:
    """Return whether `-P threads` starts our pool."""
    return _aliases.get(THREADS) == POOL
