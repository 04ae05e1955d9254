"""
Finds the message that kills its workers, without blaming messages that were processed at the same time.

A worker that dies leaves one of three traces. Its main process sees which child died of which message, and
records it. The broker redelivers unacknowledged messages and marks them. Claimed work keeps the
lease of a worker that never released it. The last two only raise a suspicion: a restart of the broker looks the
same, and a dying process affects the messages of all its threads.

So a suspected message is recorded as lost in advance, and a worker that survives it withdraws the record. A
message that already has such a record runs alone among the suspected messages of the pool. If the worker dies
again, that message was the cause. The others wait meanwhile and succeed when their turn comes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import IO, Any

from celery import signals
from django.db.models import Q, QuerySet, Value
from django.db.models.functions import Now

from outbox import attempts, crash_points
from outbox.models import Attempt
from outbox.resilience import NotNow

MOST_LOSSES = 3
"""The number of lost workers after which a message counts as the cause. The delivery limit of quorum queues is
higher; it applies to messages whose workers die before they can count."""

LOSSES_COUNT_FOR = dt.timedelta(hours=1)
"""Older losses belong to other incidents, such as deployments or a lost machine."""


class CrashLoop(Exception):
    """Every worker that took this message died with it."""


class WorkerLost(Exception):
    """The process that ran this delivery ended; its worker's main process saw it."""


class LostAlone(Exception):
    """The worker was lost, and no other suspected message was running in its pool."""


class LostTogether(Exception):
    """The worker was lost while other suspected messages were running, so the cause is not known."""


class NotAlone(NotNow):
    """Other suspected messages are running in this pool; this one waits for a moment."""


_found_abandoned: ContextVar[Callable[[], None] | None] = ContextVar("outbox_found_abandoned", default=None)


@contextlib.contextmanager
def at_work(found: Callable[[], None]) -> Iterator[None]:
    """Call `found` when the work inside the block takes over an abandoned lease."""
    token = _found_abandoned.set(found)
    try:
        yield
    finally:
        _found_abandoned.reset(token)


def found_abandoned() -> None:
    """
    Report that a lease has expired without being released: its worker was lost.

    Raises:
        CrashLoop: if the message has lost too many workers.
        NotAlone: if the work must wait for other suspected messages.
    """
    if found := _found_abandoned.get():
        found()


class Pool:
    """The suspected messages that are running, in all threads and processes of one worker."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._together = 0
        self._is_alone = False
        self._file: IO[bytes] | None = None

    def share(self, file: IO[bytes]) -> None:
        """Share a lock file with the processes that are forked later; a process that ends releases its lock."""
        self._file = file

    def enter(self, *, alone: bool) -> bool:
        """Return whether the message may begin, alone or together with others."""
        with self._guard:
            if self._is_alone or (alone and self._together) or not self._lock(alone=alone):
                return False
            self._is_alone = alone
            self._together += not alone
            return True

    def leave(self) -> None:
        """Undo a successful `enter`."""
        with self._guard:
            self._together -= not self._is_alone
            self._is_alone = False
            if self._file and not self._together:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _lock(self, *, alone: bool) -> bool:
        if self._file and not self._together:
            with contextlib.suppress(BlockingIOError, PermissionError):
                fcntl.lockf(self._file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                return True
            return False
        return True


pool = Pool()


@signals.worker_init.connect
def share_the_pool(**_: Any) -> None:
    """Share the pool's lock file before the worker forks."""
    pool.share(tempfile.TemporaryFile())  # noqa: SIM115 - open as long as the worker lives


class Watch:
    """One delivery of a message to a consumer, and whether its worker is recorded as lost in advance."""

    def __init__(self, consumer: str, message_id: str, *, delivery: str, worker: str) -> None:
        self.consumer, self.message_id, self.worker = consumer, message_id, worker
        self.delivery = delivery or uuid.uuid4().hex
        self.is_suspected = self._is_noted = self._is_in = False
        self._before = ""

    @property
    def came_back(self) -> str:
        """The header for sending the message again: the deliveries whose records must be deleted."""
        noted = self.delivery if self._is_noted else ""
        return ",".join(filter(None, [self._before, noted])) or self.delivery

    def suspect(self, *, before: str = "") -> None:
        """
        Record the delivery as lost in advance, because its message has come back.

        `before` names earlier deliveries that ended well but whose records could not be deleted.

        Raises:
            CrashLoop: if the message has lost too many workers.
            NotAlone: if other suspected messages are running and this one must run alone.
        """
        if self._is_noted:
            return
        self.is_suspected = True
        if before:
            self._before = before
            lost(self.consumer, self.message_id).filter(delivery__in=before.split(",")).delete()
            self._before = ""
        alone = bool(noted(self.consumer, self.message_id))
        if not pool.enter(alone=alone):
            raise NotAlone(f"{self.consumer} waits for other redelivered messages")
        self._is_in = True
        if alone:  # no other copy of the message is running here, whose record would not be a loss yet
            give_up_if_proven(self.consumer, noted(self.consumer, self.message_id))
        loss = LostAlone if alone else LostTogether
        attempts.record(
            consumer=self.consumer,
            message_id=self.message_id,
            error=loss(loss.__doc__),
            outcome=Attempt.Outcome.LOST,
            worker=self.worker,
            delivery=self.delivery,
        )
        self._is_noted = True
        crash_points.reached("step.loss_noted")

    def survived(self, *, done: bool = False) -> None:
        """Withdraw the record, because the worker survived. If the work is `done`, the message is cleared."""
        if not self._is_noted:
            return
        withdraw(self.consumer, self.message_id, delivery=self.delivery, done=done)
        self._is_noted = False

    def leave(self) -> None:
        """Let other suspected messages begin."""
        if self._is_in:
            pool.leave()
            self._is_in = False


_watch: ContextVar[Watch | None] = ContextVar("outbox_watch", default=None)


def watch(delivery: Watch) -> Watch:
    """Watch a delivery until this thread takes the next one, because its hooks run after its task has ended."""
    _watch.set(delivery)
    return delivery


def watched(consumer: str, kwargs: dict[str, Any]) -> Watch | None:
    """Return the delivery that this thread has taken; None if it has taken none or another one."""
    found = _watch.get()
    message_id = str(kwargs.get("message_id", ""))
    return found if found and (found.consumer, found.message_id) == (consumer, message_id) else None


def withdraw(consumer: str, message_id: str, *, delivery: str, done: bool = False) -> None:
    """Delete the record of a delivery; if its work is `done`, also all losses with an unknown cause."""
    mine = Q(delivery=delivery)
    if done:
        mine |= Q(error_class=LostTogether.__name__)
    lost(consumer, message_id).filter(mine).delete()
    crash_points.reached("step.loss_withdrawn")


def give_up_if_proven(consumer: str, errors: list[str]) -> None:
    """
    Judge a message by the error classes of its recorded losses.

    The first loss is recorded only if a main process saw it, because the message was not suspected then.

    Raises:
        CrashLoop: if there are too many losses and the message was certainly the cause of one of them.
    """
    unseen = WorkerLost.__name__ not in errors
    is_proven = any(error_class != LostTogether.__name__ for error_class in errors)
    if is_proven and len(errors) + unseen >= MOST_LOSSES:
        raise CrashLoop(f"{consumer} was delivered {MOST_LOSSES} times, and each time its worker was lost")


def noted(consumer: str, message_id: str) -> list[str]:
    """Return the error classes of a message's losses that still count."""
    recent = lost(consumer, message_id).filter(failed_at__gt=Now() - Value(LOSSES_COUNT_FOR))
    return list(recent.values_list("error_class", flat=True))


def lost(consumer: str, message_id: str) -> QuerySet[Attempt]:
    """Return the recorded losses of a message."""
    return attempts.since_resolved(consumer, message_id).filter(outcome=Attempt.Outcome.LOST)
