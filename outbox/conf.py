"""
The settings of the outbox. Each one is read from Django's settings as `OUTBOX_<NAME>` when it is used.

For example, `settings.RETENTION_DAYS` is Django's `OUTBOX_RETENTION_DAYS`, or the default below.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings

PREFIX = "OUTBOX_"


class Settings:
    """All settings, with their defaults."""

    RETENTION_DAYS: int = 30
    """Minimum number of days for which delivered messages and the records about them are kept."""

    RELAY_QUEUE: str = "relay"
    """The queue of the relay's tasks (see `schedule`). A worker that consumes it also listens for commits, so
    the relay starts within milliseconds instead of at the next tick."""

    JOBS_QUEUE: str = ""
    """The queue of the outbox's tasks that may take minutes, such as `prune` and `verify`. Empty: the default
    queue of the Celery application."""

    CHAIN_INLINE_SECONDS: float = 1.0
    """Seconds after a delivery during which a chain may continue in the same process, if its next task belongs
    to the same pool. After that it continues through the broker. 0 means always through the broker. This value
    plus the duration of the longest step must stay below the soft time limit."""

    POOL: str = ""
    """The pool of workers that this process belongs to, as its heartbeats have it. Empty: what stands before
    the `@` of its node name."""

    HEARTBEAT_SECONDS: float = 10.0
    """Seconds between two heartbeats of a worker or of beat (see `worker.heartbeats`). A process counts as gone
    after three that did not come."""

    SESSION_POOL_SIZE: int = 8
    """The maximum number of database sessions that the tasks of one worker share, if it runs them in threads.
    Its main loop opens one more, and the listener of a relay two. 0: every thread keeps one of its own."""

    PROJECT_PACKAGES: tuple[str, ...] = ()
    """Top-level packages of the project. The location of a failure is the innermost frame in one of them."""

    BREAKER_FACTORY: str = "outbox.resilience.always_closed"
    """Dotted path of a function that takes a provider's name and returns a `resilience.Breaker`. The default
    breaker never opens."""

    PROVIDER_SHARE: float = 0.75
    """The share of a process's threads that calls of one provider may hold, if it calls several (see
    `bulkheads`). 1: no bound."""

    TASK_POLICY: str = "outbox.resilience.DEFAULT_TASK_POLICY"
    """Dotted path of the `resilience.RetryPolicy` of the tasks of Django's framework."""

    LIVENESS_FILE: str = ""
    """The absolute path of a file that the main loop of a worker, a relay or beat touches every second (see
    `worker.liveness`). Each process needs its own, in a folder that is writable for it. Empty: none."""

    COMMAND: str = "python manage.py"
    """How commands begin where pages and commands show them."""

    TRACE_URL_TEMPLATE: str = ""
    """The page of a trace with `{trace_id}` in the place of its id, for links in the admin. Empty: no links."""

    def __getattribute__(self, name: str) -> Any:
        default = super().__getattribute__(name)
        return getattr(django_settings, PREFIX + name, default) if name.isupper() else default


settings = Settings()
