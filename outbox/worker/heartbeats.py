"""
Writes every few seconds that this process is alive: the main process of a worker, a relay or beat.

A thread does it, so that neither a database that is down nor a broker that is down holds up the main loop; a
heartbeat that cannot be written is tried again. Each one opens a database session and closes it again, because
children are forked from this process: one that inherited an open session would keep it open on the server. For
the same reason a fork waits until a heartbeat is written, though never for long.

The name is the node name of a worker. `outbox.processes` reads what is written here.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from typing import Any

import psycopg
from celery import bootsteps, signals
from django.db import connection

from outbox.conf import settings
from outbox.models import Heartbeat

TRY_AGAIN = 2.0
"""The longest wait, in seconds, after a heartbeat that could not be written: a database that is back must not
take the process for gone."""

END_WITHIN = 2.0
"""Seconds that a process waits at its end until that is recorded."""

FORK_WAITS = 0.2
"""Seconds that a fork waits for a heartbeat that is being written; the database may be down."""

BEAT = """
INSERT INTO outbox_heartbeat AS known (name, role, pool, queues, process, started_at, seen_at)
VALUES (%(name)s, %(role)s, %(pool)s, %(queues)s::varchar[], %(process)s,
    statement_timestamp() - make_interval(secs => %(age)s), statement_timestamp())
ON CONFLICT (name) DO UPDATE SET role = excluded.role, pool = excluded.pool, queues = excluded.queues,
    process = excluded.process, seen_at = excluded.seen_at, ended_at = NULL,
    started_at = CASE WHEN known.process = excluded.process THEN known.started_at ELSE excluded.started_at END
"""

END = """
UPDATE outbox_heartbeat SET seen_at = statement_timestamp(), ended_at = statement_timestamp()
WHERE name = %(name)s AND process = %(process)s
"""

logger = logging.getLogger(__name__)


class Heartbeats:
    """The heartbeats of one process, from `start` to `stop`."""

    def __init__(self, *, name: str, role: str, pool: str, queues: list[str]) -> None:
        self._values = {"name": name[:255], "role": role, "pool": pool[:100], "queues": sorted(queues)}
        self._process, self._pid = uuid.uuid4(), os.getpid()
        self._began = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_stopped, name="heartbeats", daemon=True)
        self._has_failed = False

    def start(self) -> None:
        """Begin to beat, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Record that the process ends in order. It waits for a moment only."""
        if os.getpid() == self._pid and self._thread.is_alive():
            self._stopping.set()
            self._thread.join(END_WITHIN)

    def _beat_until_stopped(self) -> None:
        wait = 0.0
        while not self._stopping.wait(wait):
            written = self._write(BEAT)
            wait = settings.HEARTBEAT_SECONDS if written else min(TRY_AGAIN, settings.HEARTBEAT_SECONDS)
        self._write(END)

    def _write(self, statement: str) -> bool:
        """Execute a statement in a session of its own; return whether it succeeded."""
        values = {**self._values, "process": self._process, "age": time.monotonic() - self._began}
        try:
            with _writing, _connect() as session:
                session.execute(statement, values)
        except Exception as error:  # whatever it is, the process is alive
            if not self._has_failed:
                logger.warning("A heartbeat could not be written; it is tried again: %r", error)
            self._has_failed = True
            return False
        self._has_failed = False
        return True


def _connect() -> psycopg.Connection[Any]:
    """Open a session that is no Django connection: what Django does for each new one is not needed here."""
    known = connection.get_connection_params()
    parameters = {name: value for name, value in known.items() if name not in ("cursor_factory", "context")}
    return psycopg.connect(**parameters, autocommit=True)


_writing = threading.Lock()
_held_for_fork = False


def _before_fork() -> None:
    global _held_for_fork
    _held_for_fork = _writing.acquire(timeout=FORK_WAITS)


def _after_fork_in_parent() -> None:
    if _held_for_fork:
        _writing.release()


def _after_fork_in_child() -> None:
    global _writing
    _writing = threading.Lock()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)


class Beating(bootsteps.StartStopStep):
    """Starts the heartbeats of a worker, after its pool has forked. They end when all its tasks have ended."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        queues = list(worker.app.amqp.queues.consume_from)
        role = Heartbeat.Role.RELAY if settings.RELAY_QUEUE in queues else Heartbeat.Role.WORKER
        _begin(name=worker.hostname, role=role, queues=queues)


def begin_of_beat() -> None:
    """Start the heartbeats of beat."""
    _begin(name=f"beat@{socket.gethostname()}", role=Heartbeat.Role.BEAT, queues=[])


@signals.worker_shutdown.connect
def end_of_worker(**_: Any) -> None:
    """Record that the worker of this process ends in order."""
    for role in (Heartbeat.Role.WORKER, Heartbeat.Role.RELAY):
        _end(role)


def end_of_beat() -> None:
    """Record that the beat of this process ends in order. Celery has no signal for it."""
    _end(Heartbeat.Role.BEAT)


_begun: dict[str, Heartbeats] = {}
"""The heartbeats of this process by role: a worker may have a beat of its own."""


def _begin(*, name: str, role: str, queues: list[str]) -> None:
    pool = role if role == Heartbeat.Role.BEAT else settings.POOL or name.partition("@")[0]
    _begun[role] = Heartbeats(name=name, role=role, pool=pool, queues=queues)
    _begun[role].start()


def _end(role: str) -> None:
    if heartbeats := _begun.pop(role, None):
        heartbeats.stop()
