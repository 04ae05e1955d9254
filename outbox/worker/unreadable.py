"""
Turns a broker's message into a dead letter, however little of it can be read.

`consumer`, `request` and `dead_letter_queues` use it in the main process of workers. It closes the database
connection after each use, because children are forked from that process.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from django.db import InterfaceError, OperationalError, connection, connections, transaction

from outbox import attempts, crash_points, registry, telemetry
from outbox.consumer import ConsumerTask
from outbox.database import storable
from outbox.dead_letters import burying
from outbox.models import Attempt, DeadLetter, OutboxMessage
from outbox.relay import deliveries
from outbox.worker import losses, validation

CONSUMER = "outbox.worker"
"""The consumer of a dead letter whose message names no task."""

BODY_KEPT = 16 * 1024
"""Maximum length of an unreadable body in a dead letter, in characters."""

HEADER_KEPT = 2 * 1024
"""Maximum length of one header in a dead letter, in characters."""

MOST_HEADERS = 100
"""Maximum number of headers in a dead letter."""

logger = logging.getLogger(__name__)


def failure_of(
    message: Any,
    error: BaseException,
    *,
    worker: str = "",
    source: DeadLetter.Source = DeadLetter.Source.WORKER,
    attempts: int = 1,
) -> burying.Failure:
    """Describe a failed message as far as it can be read."""
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    task = headers.get("task") if isinstance(headers.get("task"), str) else ""
    kwargs = _kwargs(message)
    payload: dict[str, Any] = {"body": _text(message.body)}
    if kwargs is not None:
        payload = {"task": task, "kwargs": kwargs}
    return burying.Failure.of(
        error,
        source=source,
        consumer=task or CONSUMER,
        message_id=storable.text(headers.get("message_id") or (kwargs or {}).get("message_id")),
        key=storable.text(registry.key_in(kwargs or {})),
        workflow=storable.text(headers.get("workflow")),
        task_id=storable.text(headers.get("id")),
        payload=payload,
        headers={
            storable.text(name, longest=HEADER_KEPT): _short(value)
            for name, value in itertools.islice(headers.items(), MOST_HEADERS)
            if value is not None
        },
        attempts=attempts,
        worker=worker,
        body="|".join(
            [type(error).__name__, _digest(message.body), _place(message), storable.text(headers.get("id"))]
        ),
    )


def failure_of_item(item: str, error: BaseException, *, queue: str, worker: str) -> burying.Failure:
    """Describe an item of a broker's list that is not a message."""
    return burying.Failure.of(
        error,
        source=DeadLetter.Source.WORKER,
        consumer=CONSUMER,
        payload={"body": item[:BODY_KEPT]},
        headers={"queue": queue},
        worker=worker,
        body=f"{queue}|{_digest(item)}",
    )


def give_up(failure: burying.Failure, task: Any = None, kwargs: Mapping[str, Any] | None = None) -> None:
    """
    Bury what failed, end its delivery, and notify its task, if it is known, in the same transaction.

    A stale copy is dropped if the outbox knows its message; otherwise nothing shows that it is stale. If
    malformed headers make it impossible to end the delivery, the failure is kept anyway.
    """
    copy = deliveries.Copy.of(failure.headers.get, failure.message_id)
    try:
        with transaction.atomic():
            if not copy or deliveries.end(copy) or not _is_known(copy):
                _bury_and_notify(failure, task, kwargs)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        logger.exception("A message that was given up could not be recorded completely")
        burying.bury(failure)


def _is_known(copy: deliveries.Copy) -> bool:
    return OutboxMessage.objects.filter(pk=copy.message_id).exists()


def _bury_and_notify(failure: burying.Failure, task: Any, kwargs: Mapping[str, Any] | None) -> None:
    burying.bury(failure)
    if isinstance(task, ConsumerTask):
        task.record_buried(dict(kwargs or {}))


def record_death(consumer: str, message_id: str, *, delivery: str, worker: str, error: str) -> None:
    """
    Record that the child process of this delivery died.

    Raises:
        outbox.worker.losses.CrashLoop: if the message has lost too many workers.
    """
    in_advance = losses.lost(consumer, message_id).filter(delivery=delivery)
    if not in_advance.update(error_class=losses.SuspectLost.__name__, error=error):
        attempts.record(
            consumer=consumer,
            message_id=message_id,
            error=losses.WorkerLost(error),
            outcome=Attempt.Outcome.LOST,
            worker=worker,
            delivery=delivery,
        )
    telemetry.emit(
        "step.failed", consumer=consumer, message_id=message_id, kind="crash", error_class="WorkerLost"
    )
    crash_points.reached("step.loss_noted")
    losses.give_up_if_proven(consumer, losses.noted(consumer, message_id))


def give_up_lost(
    message: Any, task: ConsumerTask, loop: losses.CrashLoop, *, delivery: str, worker: str
) -> None:
    """Bury a message that has cost too many workers; its last loss is the try that was given up."""
    kwargs = _kwargs(message) or {}
    message_id = str(kwargs["message_id"])
    with transaction.atomic():
        losses.lost(task.name, message_id).filter(delivery=delivery).delete()
        copy = deliveries.Copy.of(message.headers.get, message_id)
        if copy and not deliveries.end(copy):
            return
        attempts.record(
            consumer=task.name,
            message_id=message_id,
            error=loop,
            outcome=Attempt.Outcome.BURIED,
            worker=worker,
        )
        spent = attempts.since_resolved(task.name, message_id).exclude(outcome=Attempt.Outcome.WAITED).count()
        failure = failure_of(message, loop, worker=worker, source=DeadLetter.Source.TASK, attempts=spent)
        _bury_and_notify(failure, task, kwargs)
    crash_points.reached("step.buried")


def safely(note: Callable[[], None]) -> bool:
    """
    Write to the database from the main process; return False if it must be tried again.

    An error that does not come from the database would occur each time. It is logged with its traceback and
    counts as done.
    """
    try:
        note()
    except (OperationalError, InterfaceError):
        logger.exception("The worker could not reach the database to record a failure")
        return False
    except Exception:
        logger.critical("The worker could not record a failure", exc_info=True)
    finally:
        if not connection.in_atomic_block:
            connections.close_all()
    return True


def _kwargs(message: Any) -> dict[str, Any] | None:
    """The keyword arguments of a message, or None if they cannot be read or stored."""
    try:
        _, kwargs, _ = validation.contents(message)
    except Exception:
        return None
    return kwargs if storable.is_storable(kwargs) else None


def _text(body: Any) -> str:
    if isinstance(body, str):
        return body[:BODY_KEPT]
    if not isinstance(body, bytes | bytearray | memoryview):
        return storable.text(body, longest=BODY_KEPT)
    raw = bytes(body[: 4 * BODY_KEPT])  # a character takes at most four bytes
    try:
        return raw.decode()[:BODY_KEPT]
    except UnicodeDecodeError as invalid:
        if len(body) > len(raw) and invalid.end == len(raw):  # cut within a character
            return raw[: invalid.start].decode()[:BODY_KEPT]
        return "base64:" + base64.b64encode(raw[:BODY_KEPT]).decode()


def _place(message: Any) -> str:
    """The routing key of a message, which leads to its queue."""
    info = message.delivery_info
    return storable.text(info.get("routing_key") if isinstance(info, Mapping) else "")


def _digest(body: Any) -> str:
    """A digest of the whole body, which distinguishes bodies with the same beginning."""
    if isinstance(body, str):
        body = body.encode(errors="backslashreplace")
    if not isinstance(body, bytes | bytearray | memoryview):
        body = storable.text(body).encode()
    return hashlib.sha256(body).hexdigest()


def _short(value: Any) -> Any:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return storable.text(value, longest=HEADER_KEPT)
