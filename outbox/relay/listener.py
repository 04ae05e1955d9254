"""
Starts the workflows of published messages within milliseconds of the commit.

The listener runs in threads of the worker that consumes `OUTBOX_RELAY_QUEUE`, in addition to the drains that
beat schedules. While it sleeps, a flag in the database asks writers to notify it; while it works, no
notification is needed. A lost wake-up only delays a message until the next query.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from celery import Celery, bootsteps
from django.db import connection, connections

from outbox import telemetry
from outbox.broker import queues
from outbox.conf import settings
from outbox.relay import relay
from outbox.relay.watermark import Watermark
from outbox.worker import dead_letter_queues, liveness

CHANNEL = "outbox"

FIRST_WAIT, LONGEST_WAIT = 0.02, 1.0
"""Seconds until the relay queries again without a notification. The first queries follow quickly, for
transactions that were open when the relay fell asleep and saw it awake."""

LINGER, LONGEST_LINGER = 0.02, 0.1
"""Seconds that the relay stays awake after work. Under load it collects batches instead of being notified of
every row. The longer time applies while messages arrive so fast that a batch takes as many statements as it has
messages: at 140 messages per second it saves a third of the relay's processor time."""

SEVERAL = 2
"""The size of a batch after which the relay lingers for longer: each batch takes three statements."""

DRAIN_WITHIN = dt.timedelta(seconds=1)
"""How long one drain may take. A relay that is stopped during a long backlog ends between two batches."""

PAUSE = 1.0
"""Seconds before a failed try is repeated, and while the broker is down."""

STOP_WITHIN = 5.0
"""Seconds that the worker waits for the threads when it stops. They check at least once a second."""

logger = logging.getLogger(__name__)


class Listening(bootsteps.StartStopStep):
    """Starts and stops the threads together with a worker that consumes the relay's queue."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        self.threads: list[Thread] = []

    def include_if(self, worker: Any) -> bool:
        return settings.RELAY_QUEUE in worker.app.amqp.queues.consume_from

    def start(self, worker: Any) -> None:
        self.threads = [Thread(listen, worker.app)]
        if queues.dead_queues(worker.app, worker.app.amqp.queues):
            self.threads.append(Thread(dead_letter_queues.bury_undeliverable, worker.app))
        for thread in self.threads:
            thread.start()

    def stop(self, worker: Any) -> None:
        for thread in self.threads:
            thread.stopping.set()
        until = time.monotonic() + STOP_WITHIN
        for thread in self.threads:
            thread.join(max(0.0, until - time.monotonic()))

    def terminate(self, worker: Any) -> None:
        self.stop(worker)


class Thread(threading.Thread):
    """Runs a function until it is stopped, and restarts it whenever it fails."""

    def __init__(self, work: Callable[[Celery, threading.Event], None], app: Celery) -> None:
        super().__init__(name=work.__name__, daemon=True)
        self.work, self.app = work, app
        self.stopping = threading.Event()

    def run(self) -> None:
        self.app.set_current()  # the current app is a thread-local
        failed = False
        while not self.stopping.is_set():
            try:
                self.work(self.app, self.stopping)
            except Exception as error:
                if not failed:
                    logger.warning("%s failed and is restarted: %r", self.name, error, exc_info=True)
                failed = True
                telemetry.emit("relay.interrupted", work=self.name, error=repr(error))
                self.stopping.wait(PAUSE)
            else:
                failed = False
            finally:
                connections.close_all()
        liveness.other_ended()


def listen(app: Celery, stopping: threading.Event) -> None:
    """
    Drain whenever something is published, until `stopping` is set.

    Raises:
        Exception: if the connection to the database is lost.
    """
    liveness.other_turned("listen")
    with connection.cursor() as cursor:
        # If the server crashes and loses a claim or a settled message, the message is sent again, as after the
        # crash of a relay.
        cursor.execute("SET synchronous_commit TO off")
    with _connect() as session:
        session.execute(f"LISTEN {CHANNEL}")
        try:
            _listen(session, stopping)
        finally:
            if not session.broken:
                _set_sleeping(session, False)


def _listen(session: psycopg.Connection[Any], stopping: threading.Event) -> None:
    wait, linger, asleep, watermark = FIRST_WAIT, LINGER, False, Watermark()
    while not stopping.is_set():
        liveness.other_turned("listen")
        # The first batch after a sleep goes out before anything else is done.
        drained = relay.drain(most=1 if asleep else None, within=DRAIN_WITHIN, watermark=watermark)
        if wakes_up := asleep and bool(drained.published or drained.broker_down):
            _set_sleeping(session, False)
            asleep = False
        if drained.broker_down:
            stopping.wait(PAUSE)
        elif drained.published:
            linger = next_linger(linger, drained.published)
            stopping.wait(0 if wakes_up else linger)
        else:
            # Set after every wait, because another relay may have reset it. It writes only if it changes.
            fell_asleep, asleep = not asleep, True
            _set_sleeping(session, True)
            if fell_asleep:
                wait = FIRST_WAIT
                continue  # query once more: messages committed before the flag was set sent no notification
            for _ in session.notifies(timeout=wait, stop_after=1):
                watermark = Watermark()  # the notifying transaction may have begun long ago
            wait = min(2 * wait, LONGEST_WAIT)


def next_linger(linger: float, published: int) -> float:
    """Return how long to linger after a drain: twice as long as before while drains find several messages."""
    return min(2 * linger, LONGEST_LINGER) if published >= SEVERAL else LINGER


def _connect() -> psycopg.Connection[Any]:
    """Open a separate connection to listen on: Django's is busy and may be closed."""
    known = connection.get_connection_params()
    parameters = {name: value for name, value in known.items() if name not in ("cursor_factory", "context")}
    session = psycopg.connect(**parameters, autocommit=True)
    session.execute("SET synchronous_commit TO off")  # a flag that is lost in a crash is set again
    return session


def _set_sleeping(session: psycopg.Connection[Any], sleeping: bool) -> None:
    with liveness.waiting():
        _write_sleeping(session, sleeping)


def _write_sleeping(session: psycopg.Connection[Any], sleeping: bool) -> None:
    row = session.execute("SELECT sleeping FROM outbox_relaystate WHERE id = 1").fetchone()
    if row is None:
        session.execute(
            "INSERT INTO outbox_relaystate (id, sleeping) VALUES (1, %s) ON CONFLICT DO NOTHING", [sleeping]
        )
    elif row[0] != sleeping:
        session.execute("UPDATE outbox_relaystate SET sleeping = %s WHERE id = 1", [sleeping])
