"""
Counting what one order costs: statements, transactions, broker messages, log lines. In one process, no times.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from celery import Celery, current_app
from django.db import connection

from benchmarks.budget import Counts
from orderflow.observability import logs
from outbox import testing
from outbox.relay import relay


class Counter:
    """Counts the statements and transactions of this process's session while it is active."""

    def __init__(self) -> None:
        self.queries = self.transactions = self.messages = self.lines = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count until the end of the block; the initial queries of a new session do not count."""
        connection.ensure_connection()
        ended = {name: getattr(connection, name) for name in ("commit", "rollback")}
        for name, end in ended.items():
            setattr(connection, name, self._counted(end))
        try:
            with connection.execute_wrapper(self._count), self._lines_counted():
                yield
        finally:
            for name in ended:
                delattr(connection, name)

    def per(self, orders: int) -> Counts:
        """Return the counts divided by the number of orders."""
        return Counts(
            queries=self.queries / orders,
            transactions=self.transactions / orders,
            messages=self.messages / orders,
            lines=self.lines / orders,
        )

    @contextlib.contextmanager
    def _lines_counted(self) -> Iterator[None]:
        """Count the lines that workers would write, instead of writing them."""
        root = logging.getLogger()
        before = list(root.handlers), root.level
        logs.configure_logging()
        for handler in root.handlers:
            handler.emit = self._count_line  # type: ignore[method-assign]
        try:
            yield
        finally:
            root.handlers[:], root.level = before

    def _count_line(self, record: logging.LogRecord) -> None:
        self.lines += 1

    def _count(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        self.queries += 1
        # Outside a transaction block each statement is its own transaction.
        self.transactions += not connection.in_atomic_block
        return execute(sql, params, many, context)

    def _counted(self, end: Callable[[], None]) -> Callable[[], None]:
        def ending() -> None:
            self.transactions += 1
            end()

        return ending


def work_off(counter: Counter, *, app: Celery | None = None) -> None:
    """
    Run everything that waits in the broker of `app`, or run the relay and the project's tasks, and count it.
    """
    relays, app = app is None, app or current_app
    with app.connection_for_read() as link:
        queues = [queue(link.default_channel) for queue in app.amqp.queues.values()]
        for queue in queues:
            queue.declare()
        with counter.watching():
            while (relays and relay.drain().published) or _run_waiting(counter, queues, app):
                pass


def _run_waiting(counter: Counter, queues: list[Any], app: Celery) -> int:
    before = counter.messages
    for queue in queues:
        while message := queue.get():
            testing.run(message, app=app)
            counter.messages += 1
    return counter.messages - before
