"""
Finds the message that kills its workers, without blaming messages that were processed at the same time.

A worker that dies leaves one of three traces. Its main process sees which child died of which message, and
records it. The broker redelivers unacknowledged messages and marks them. Claimed work keeps the
lease of a worker that never released it. The last two only raise a suspicion: a restart of the broker looks the
same, and a dying process affects the messages of all its threads.

So a suspected message is recorded as lost in advance, and a worker that survives it withdraws the record. A
message that already has such a record runs alone: nothing else runs in its process (see `company`). If the
process dies again, that message was the cause, or somebody killed the process from outside. Hardly anybody
kills it twice while the same message runs alone, so two such deaths prove it. The others wait meanwhile, and
succeed when their turn comes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from celery import signals
from django.db.models import Q, QuerySet, Value
from django.db.models.functions import Now

from outbox import attempts, crash_points
from outbox.models import Attempt
from outbox.resilience import NotNow
from outbox.worker import company

MOST_LOSSES = 3
"""The number of lost workers after which a message counts as the cause, if a main process saw one of them. The
delivery limit of quorum queues is higher; it applies to messages whose workers die before they can count."""

MOST_ALONE = 2
"""The number of processes lost with this message alone, after which it counts as the cause although no main
process saw it. With the first two deaths, of which all messages of a process are suspected, there are four."""

LOSSES_COUNT_FOR = dt.timedelta(hours=1)
"""Older losses belong to other incidents, such as deployments or a lost machine."""


class CrashLoop(Exception):
    """Every worker that took this message died with it."""


class WorkerLost(Exception):
    """The process that ran this delivery ended; its worker's main process saw it."""


class SuspectLost(Exception):
    """The process that ran this suspected delivery ended; its worker's main process saw it."""


class LostAlone(Exception):
    """The worker was lost, and no other message was running in its process."""


class LostTogether(Exception):
    """The worker was lost while other messages were running in it, so the cause is not known."""


class NotAlone(NotNow):
    """A suspected message has to run alone: it waits for the others, or they wait for it, for a moment."""


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


pool = company.Pool()


@signals.worker_init.connect
def share_the_pool(**_: Any) -> None:
    """Share the pool's lock file before the worker forks."""
    pool.share(tempfile.TemporaryFile())  # noqa: SIM115 - open as long as the worker lives


@signals.task_postrun.connect
def leave(**_: Any) -> None:
    """Let others begin after a task whose hooks did not withdraw its record."""
    if watch := _watch.get():
        watch.leave()


def abandon(delivery: str) -> None:
    """
    Give up the thread that runs this delivery, because its hard time limit has passed and it cannot be killed.

    The thread no longer keeps others waiting. While it lives, no death certainly has another cause.
    """
    if watch := _running.get(delivery):
        pool.abandon(watch, watch.thread)


_running: dict[str, Watch] = {}
"""The watches of the deliveries that run in this process, by delivery."""


class Watch:
    """One delivery of a message to a consumer, and whether its worker is recorded as lost in advance."""

    def __init__(self, consumer: str, message_id: str, *, delivery: str, worker: str) -> None:
        self.consumer, self.message_id, self.worker = consumer, message_id, worker
        self.delivery = delivery or uuid.uuid4().hex
        self.is_suspected = self._is_noted = False
        self._before = ""
        self.thread, self._is_in = threading.current_thread(), False

    @property
    def came_back(self) -> str:
        """The header for sending the message again: the deliveries whose records must be deleted."""
        noted = self.delivery if self._is_noted else ""
        return ",".join(filter(None, [self._before, noted])) or self.delivery

    def begin(self) -> None:
        """
        Begin beside the other deliveries of the process.

        Raises:
            NotAlone: if a suspected message runs alone for longer.
        """
        _running[self.delivery] = self
        if not pool.enter(self):
            raise NotAlone(f"{self.consumer} waits for a message that may have ended its worker")
        self._is_in = True

    def suspect(self, *, before: str = "", wait: float = 0.0) -> None:
        """
        Record the delivery as lost in advance, because its message has come back.

        `before` names earlier deliveries that ended well but whose records could not be deleted. `wait` is how
        many seconds it may wait for its turn to run alone.

        Raises:
            CrashLoop: if the message has lost too many workers.
            NotAlone: if this message must run alone and others are running.
        """
        if self._is_noted:
            return
        if not self._is_in:
            self.begin()
        self.is_suspected = True
        if before:
            self._before = before
            lost(self.consumer, self.message_id).filter(delivery__in=before.split(",")).delete()
            self._before = ""
        if noted(self.consumer, self.message_id):
            self._continue_alone(wait)
            # No other copy of the message is running here, whose record would not be a loss yet.
            give_up_if_proven(self.consumer, noted(self.consumer, self.message_id))
        else:
            self._continue_as_suspect()
        loss = LostAlone if pool.is_certain(self) else LostTogether
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

    def _continue_alone(self, wait: float) -> None:
        pool.leave(self)
        if not pool.enter_alone(self, wait=wait):
            raise NotAlone(f"{self.consumer} waits until no other message runs in its process")

    def _continue_as_suspect(self) -> None:
        if not pool.suspect(self):
            raise NotAlone(f"{self.consumer} waits for a message that may have ended its worker")

    def survived(self, *, done: bool = False) -> None:
        """Withdraw the record, because the worker survived. If the work is `done`, the message is cleared."""
        if not self._is_noted:
            return
        withdraw(self.consumer, self.message_id, delivery=self.delivery, done=done)
        self._is_noted = False

    def end(self) -> None:
        """Let others begin, unless the record must be withdrawn first: until then a death would count."""
        if not self._is_noted:
            self.leave()

    def leave(self) -> None:
        """Let others begin. Doing it again has no effect."""
        pool.leave(self)
        self._is_in = False
        if _running.get(self.delivery) is self:
            _running.pop(self.delivery, None)


_watch: ContextVar[Watch | None] = ContextVar("outbox_watch", default=None)


def watch(delivery: Watch) -> Watch:
    """Watch a delivery until this thread takes the next one, because its hooks run after its task has ended."""
    if last := _watch.get():
        last.leave()
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
        CrashLoop: if there are too many losses and the message was certainly the cause.
    """
    was_first_seen, was_suspect_seen = WorkerLost.__name__ in errors, SuspectLost.__name__ in errors
    is_proven = was_first_seen or was_suspect_seen or errors.count(LostAlone.__name__) >= MOST_ALONE
    losses = len(errors) + (not was_first_seen)
    if is_proven and losses >= MOST_LOSSES:
        raise CrashLoop(f"{consumer} was delivered {losses} times, and each time its worker was lost")


def noted(consumer: str, message_id: str) -> list[str]:
    """Return the error classes of a message's losses that still count."""
    recent = lost(consumer, message_id).filter(failed_at__gt=Now() - Value(LOSSES_COUNT_FOR))
    return list(recent.values_list("error_class", flat=True))


def lost(consumer: str, message_id: str) -> QuerySet[Attempt]:
    """Return the recorded losses of a message."""
    return attempts.since_resolved(consumer, message_id).filter(outcome=Attempt.Outcome.LOST)
