"""
Finding the message that ends the workers it is given to, without blaming those that were beside it.

A worker that dies leaves one of three traces. Its main process sees which child died of which message, and
notes it. The broker delivers again what was not acknowledged, and says so. A step or a notification keeps the
lease of a worker that never gave it back. The last two are a suspicion only: a broker that restarts looks the
same, and a process that dies takes all its threads' messages along.

So a message under suspicion is noted as lost in advance, and a worker that survives it takes the note back.
One that has such a note already runs alone among its kind in the pool. If the worker dies again, it was that
message; the others step aside meanwhile, and end well when their turn comes.
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
"""Workers that a message may lose before it counts as the cause. The limit of quorum queues is above it, for
messages whose workers do not get as far as counting."""

LOSSES_COUNT_FOR = dt.timedelta(hours=1)
"""Older losses were other incidents: deployments, a machine that went away."""


class CrashLoop(Exception):
    """Every worker that took this message died with it."""


class WorkerLost(Exception):
    """The process that ran this delivery ended; its worker's main process saw it."""


class LostAlone(Exception):
    """The worker was lost, and no other message that had come back was at work in its pool."""


class LostTogether(Exception):
    """The worker was lost, with other messages that had come back: which of them was the cause is open."""


class NotAlone(NotNow):
    """Other messages that have come back are at work in this pool; this one steps aside for a moment."""


_found_abandoned: ContextVar[Callable[[], None] | None] = ContextVar("outbox_found_abandoned", default=None)


@contextlib.contextmanager
def at_work(found: Callable[[], None]) -> Iterator[None]:
    """Call `found` when the work inside the block takes over what a dead worker has left behind."""
    token = _found_abandoned.set(found)
    try:
        yield
    finally:
        _found_abandoned.reset(token)


def found_abandoned() -> None:
    """
    Say that a lease has ended which its holder never gave back: that worker was lost.

    Raises:
        CrashLoop: if it was one too many.
        NotAlone: if the work must wait until others that came back are done.
    """
    if found := _found_abandoned.get():
        found()


class Pool:
    """Which messages that have come back are at work, in all threads and processes of one worker."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._together = 0
        self._is_alone = False
        self._file: IO[bytes] | None = None

    def share(self, file: IO[bytes]) -> None:
        """Let the processes that are forked from now on know of each other; their ends release the lock."""
        self._file = file

    def enter(self, *, alone: bool) -> bool:
        """Whether the message may begin, alone or together with others."""
        with self._guard:
            if self._is_alone or (alone and self._together) or not self._lock(alone=alone):
                return False
            self._is_alone = alone
            self._together += not alone
            return True

    def leave(self) -> None:
        """End what `enter` has begun."""
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
    """Before the worker forks."""
    pool.share(tempfile.TemporaryFile())  # noqa: SIM115 - open as long as the worker lives


class Watch:
    """One delivery of a message to a consumer, and whether its worker is noted as lost in advance."""

    def __init__(self, consumer: str, message_id: str, *, delivery: str, worker: str) -> None:
        self.consumer, self.message_id, self.worker = consumer, message_id, worker
        self.delivery = delivery or uuid.uuid4().hex
        self.is_suspected = self._is_noted = self._is_in = False
        self._before = ""

    @property
    def came_back(self) -> str:
        """What the same message says when it is sent once more: the deliveries whose notes are to go."""
        noted = self.delivery if self._is_noted else ""
        return ",".join(filter(None, [self._before, noted])) or self.delivery

    def suspect(self, *, before: str = "") -> None:
        """
        Note the delivery as lost in advance: its message has come back. `before` names earlier
        deliveries that ended well, whose notes the database could not take back.

        Raises:
            CrashLoop: if its message has lost too many workers.
            NotAlone: if others that came back are at work, and it has to be found out who it is.
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
            raise NotAlone(f"{self.consumer} waits until other messages that came back are done")
        self._is_in = True
        if alone:  # now no other copy of the message is at work here, whose note would not be a loss yet
            give_up_if_proven(self.consumer, noted(self.consumer, self.message_id))
        loss = LostAlone if alone else LostTogether
        attempts.note(
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
        """Take the note back: the worker lives. If the work is `done`, the message was never the cause."""
        if not self._is_noted:
            return
        withdraw(self.consumer, self.message_id, delivery=self.delivery, done=done)
        self._is_noted = False

    def leave(self) -> None:
        """Let others that came back begin."""
        if self._is_in:
            pool.leave()
            self._is_in = False


_watch: ContextVar[Watch | None] = ContextVar("outbox_watch", default=None)


def watch(delivery: Watch) -> Watch:
    """Watch a delivery until this thread takes the next one: its hooks run when its task has ended."""
    _watch.set(delivery)
    return delivery


def watched(consumer: str, kwargs: dict[str, Any]) -> Watch | None:
    """The delivery that this thread has taken; None in a process that has taken none, or another one."""
    found = _watch.get()
    message_id = str(kwargs.get("message_id", ""))
    return found if found and (found.consumer, found.message_id) == (consumer, message_id) else None


def withdraw(consumer: str, message_id: str, *, delivery: str, done: bool = False) -> None:
    """Take back what was noted in advance of a delivery, and all that was open if its work is `done`."""
    mine = Q(delivery=delivery)
    if done:
        mine |= Q(error_class=LostTogether.__name__)
    lost(consumer, message_id).filter(mine).delete()
    crash_points.reached("step.loss_withdrawn")


def give_up_if_proven(consumer: str, errors: list[str]) -> None:
    """
    Judge a message by what is noted of it: the errors of its losses.

    The first loss is noted by nobody unless a main process saw it: the message was under no suspicion then.

    Raises:
        CrashLoop: if its losses are too many, and in one of them it was the cause beyond doubt.
    """
    unseen = WorkerLost.__name__ not in errors
    is_proven = any(error_class != LostTogether.__name__ for error_class in errors)
    if is_proven and len(errors) + unseen >= MOST_LOSSES:
        raise CrashLoop(f"{consumer} was delivered {MOST_LOSSES} times, and each time its worker was lost")


def noted(consumer: str, message_id: str) -> list[str]:
    """The error classes of a message's losses that still count."""
    recent = lost(consumer, message_id).filter(failed_at__gt=Now() - Value(LOSSES_COUNT_FOR))
    return list(recent.values_list("error_class", flat=True))


def lost(consumer: str, message_id: str) -> QuerySet[Attempt]:
    """What is noted of workers that the message has lost."""
    return attempts.since_resolved(consumer, message_id).filter(outcome=Attempt.Outcome.LOST)
