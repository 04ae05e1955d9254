"""
The pool of sessions of a process with many threads: psycopg's pool, as Django uses it, and what a worker adds.

A session is checked without a round trip. One whose thread has ended, or whose task has left it open, returns
to the pool. A wait in vain says why there was no session.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from outbox.database import sessions

Session = psycopg.Connection[Any]

logger = logging.getLogger(__name__)


class SessionPool(ConnectionPool[Session]):
    """A pool that knows which thread has which session."""

    def __init__(self, **options: Any) -> None:
        self._taken: dict[Session, threading.Thread] = {}
        self._refusal = ""
        self._missing = 0
        super().__init__(open=False, **options)
        self._most = self.max_size

    def getconn(self, timeout: float | None = None) -> Session:
        """
        Take a session that has not ended, or wait for one.

        Raises:
            PoolTimeout: if all are in use, or none could be opened. It says which.
        """
        self._collect()
        until = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            try:
                session = super().getconn(until - time.monotonic())
            except PoolTimeout:
                self._replace_lost()
                raise PoolTimeout(f"no database session within {self.timeout:g} s: {self._reason()}") from None
            if not has_ended(session):
                self._taken[session] = threading.current_thread()
                return session
            # At once: psycopg's own loop sleeps between two checks, and a restart ends all sessions.
            session.close()
            super().putconn(session)

    def putconn(self, conn: Session) -> None:
        """Give a session back."""
        self._taken.pop(conn, None)
        super().putconn(conn)

    def free(self) -> int:
        """Return how many sessions no thread has or waits for; negative if more threads wait."""
        return self._most - len(self._taken) - len(self._waiting)

    def collect_mine(self) -> None:
        """Take back what the current thread still has after its task."""
        me = threading.current_thread()
        self._take_back([session for session, thread in list(self._taken.items()) if thread is me])

    def _collect(self) -> None:
        """Take back the sessions of threads that have ended."""
        self._take_back([session for session, thread in list(self._taken.items()) if not thread.is_alive()])

    def _replace_lost(self) -> None:
        """
        Open one more session for each that was lost.

        A thread that is interrupted just when it gets a session, at a hard time limit, cannot give it back.
        Sessions that are merely on their way to a thread are not missing at the next wait in vain, too.
        """
        if self._refusal:
            return
        numbers = self.get_stats()
        missing = numbers["pool_size"] - numbers["pool_available"] - len(self._taken)
        lost, self._missing = min(missing, self._missing), missing
        if lost > self.max_size - self._most:
            logger.warning("%d database sessions of this process were lost, and are replaced", lost)
            self.resize(self.min_size, self._most + lost)

    def _take_back(self, lost: list[Session]) -> None:
        for session in lost:
            if self._taken.pop(session, None):  # no other thread has done so
                session.close()  # its state is unknown
                super().putconn(session)

    def _connect(self, timeout: float | None = None) -> Session:
        try:
            session = super()._connect(timeout)
        except psycopg.Error as error:
            self._refusal = str(error).strip()
            raise
        self._refusal = ""
        return session

    def _reason(self) -> str:
        return self._refusal or f"all {self.max_size} of the process are in use"


def has_ended(session: Session) -> bool:
    """Return whether a session has ended. The server is asked only if it has sent something unasked."""
    if not sessions.has_something_to_read(session):
        return False
    try:
        ConnectionPool.check_connection(session)
    except psycopg.Error:
        return True
    return False
