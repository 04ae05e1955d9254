"""
What could not be finished: burying it, looking at what a replay would do, replaying, discarding.

The admin, the commands and the workers all call these functions; none has logic of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import traceback as tracebacks
import uuid
from collections import Counter
from types import TracebackType
from typing import Any

from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from outbox import crash_points, publisher, telemetry
from outbox.models import DeadLetter, DeadLetterQuerySet, OutboxMessage

LONGEST_TEXT = 64 * 1024
"""Characters of an error or a traceback that are kept; a runaway repr must not fill the table."""


NEWEST_WINS = (
    "error_class",
    "error",
    "traceback",
    "fingerprint",
    "payload",
    "headers",
    "attempts",
    "worker",
    "task_id",
)
"""What an open letter takes over when the same thing is buried again."""


class ReasonMissing(Exception):
    """Somebody wants to replay or discard dead letters without saying why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """
    All that is known about what failed.

    Whatever is not known stays empty; `body` is what to tell unreadable things apart by.
    """

    source: str
    consumer: str
    error_class: str
    error: str
    traceback: str = ""
    site: str = ""
    message_id: str = ""
    key: str = ""
    workflow: str = ""
    task_id: str = ""
    payload: Any = dataclasses.field(default_factory=dict)
    headers: dict[str, Any] = dataclasses.field(default_factory=dict)
    attempts: int = 1
    worker: str = ""
    body: str = ""

    @classmethod
    def of(cls, error: BaseException, **known: Any) -> Failure:
        """Describe an exception, with what else is `known`."""
        return cls(
            error_class=type(error).__name__,
            error=str(error) or repr(error),
            traceback="".join(tracebacks.format_exception(error)),
            site=site_of(error.__traceback__),
            **known,
        )


def site_of(trace: TracebackType | None) -> str:
    """The innermost frame of a traceback that lies in this project, as `module:function`."""
    site = ""
    for frame, _ in tracebacks.walk_tb(trace):
        module = frame.f_globals.get("__name__", "")
        if module.split(".")[0] in settings.PROJECT_PACKAGES:
            site = f"{module}:{frame.f_code.co_name}"
    return site


def bury(failure: Failure) -> DeadLetter:
    """
    Keep a failure as an open dead letter; burying the same thing again updates the letter that is open.

    Never loses what it is given: texts are cut at `LONGEST_TEXT`, values that are no JSON become text.
    """
    message_id = _uuid_or_none(failure.message_id)
    told_apart_by = failure.message_id or failure.body or json.dumps(failure.payload, default=repr)
    row = DeadLetter(
        source=failure.source,
        consumer=failure.consumer[:200],
        message_id=message_id,
        workflow=failure.workflow[:200],
        task_id=failure.task_id[:200],
        error_class=failure.error_class[:200],
        error=_storable(failure.error)[:LONGEST_TEXT],
        traceback=_storable(failure.traceback)[-LONGEST_TEXT:],
        fingerprint=hashlib.sha1(
            f"{failure.consumer}|{failure.error_class}|{failure.site}".encode(), usedforsecurity=False
        ).hexdigest(),
        payload=_json(failure.payload),
        headers=_json(failure.headers),
        attempts=failure.attempts,
        worker=failure.worker[:200],
        digest=hashlib.sha256(f"{failure.consumer}|{told_apart_by}".encode()).hexdigest(),
        key=failure.key[:200],
    )
    if message_id and (message := OutboxMessage.objects.filter(pk=message_id).first()):
        row.key, row.event_name = message.key, message.event_name
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        DeadLetter.objects.unresolved().filter(digest=row.digest).update(
            **{field: getattr(row, field) for field in NEWEST_WINS}
        )
    telemetry.emit(
        "message.buried",
        consumer=row.consumer,
        message_id=failure.message_id,
        key=row.key,
        error_class=row.error_class,
        attempts=row.attempts,
    )
    return DeadLetter.objects.filter(digest=row.digest).latest("pk")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preview:
    """
    What a replay of a selection would do, in letters.

    `by_cause` counts what would be replayed, by consumer and error class. The other open ones cannot be:
    they are `without_message`, or their message is no longer in the outbox (`message_gone`).
    """

    by_cause: dict[tuple[str, str], int]
    without_message: int
    message_gone: int

    @property
    def replayable(self) -> int:
        """How many would be replayed."""
        return sum(self.by_cause.values())

    @property
    def unreadable(self) -> int:
        """How many cannot be, for either reason."""
        return self.without_message + self.message_gone

    @property
    def by_consumer(self) -> dict[str, int]:
        """What would be replayed, by what gave up."""
        counts: Counter[str] = Counter()
        for (consumer, _), letters in self.by_cause.items():
            counts[consumer] += letters
        return dict(counts)

    def why_not(self) -> list[str]:
        """How many cannot be replayed and why, a phrase for each reason that there is."""
        reasons = [
            (self.without_message, "carried no message that could be read"),
            (self.message_gone, "had a message that is no longer in the outbox"),
        ]
        return [f"{letters} {reason}" for letters, reason in reasons if letters]


def preview(letters: DeadLetterQuerySet) -> Preview:
    """Count what a replay of the open ones among `letters` would deliver, without changing anything."""
    rows = list(letters.unresolved().values_list("message_id", "consumer", "error_class"))
    kept = set(_deliverable(message_id for message_id, _, _ in rows if message_id))
    without_message = sum(message_id is None for message_id, _, _ in rows)
    causes = Counter((consumer, error) for message_id, consumer, error in rows if message_id in kept)
    return Preview(
        by_cause=dict(causes),
        without_message=without_message,
        message_gone=len(rows) - causes.total() - without_message,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resolved:
    """How many letters were resolved, and how many of the selection were left open, and why."""

    done: int
    unreadable: int = 0


def replay(letters: DeadLetterQuerySet, *, by: str, reason: str, user_id: int | None = None) -> Resolved:
    """
    Deliver the messages of the open ones among `letters` again, the same ids into the same pipe.

    Effects that took place stay single: every consumer finds its own work done. Letters that carry
    no readable message, or whose message is gone, stay open and are counted in `unreadable`.

    Raises:
        ReasonMissing: if `reason` is blank.
    """
    with transaction.atomic():
        rows = _lock(letters, reason)
        kept = set(_deliverable(row.message_id for row in rows if row.message_id))
        ready = [row for row in rows if row.message_id in kept]
        for workflow in sorted({row.workflow for row in ready}):
            ids = [row.message_id for row in ready if row.workflow == workflow and row.message_id]
            publisher.redeliver(ids, workflow=workflow)
        _resolve(ready, DeadLetter.Resolution.REPLAYED, by=by, reason=reason, user_id=user_id)
    crash_points.reached("letters.replayed")
    for row in ready:
        telemetry.emit("message.replayed", consumer=row.consumer, message_id=str(row.message_id), by=by)
    return Resolved(done=len(ready), unreadable=len(rows) - len(ready))


def discard(letters: DeadLetterQuerySet, *, by: str, reason: str, user_id: int | None = None) -> Resolved:
    """
    Close the open ones among `letters` without delivering anything. The letters stay readable.

    Raises:
        ReasonMissing: if `reason` is blank.
    """
    with transaction.atomic():
        rows = _lock(letters, reason)
        _resolve(rows, DeadLetter.Resolution.DISCARDED, by=by, reason=reason, user_id=user_id)
    crash_points.reached("letters.discarded")
    for row in rows:
        telemetry.emit("message.discarded", consumer=row.consumer, message_id=str(row.message_id), by=by)
    return Resolved(done=len(rows))


def _lock(letters: DeadLetterQuerySet, reason: str) -> list[DeadLetter]:
    if not reason.strip():
        raise ReasonMissing("say why: the next person will read it on the letter")
    return list(letters.unresolved().order_by("pk").select_for_update())


def _resolve(
    rows: list[DeadLetter], resolution: DeadLetter.Resolution, *, by: str, reason: str, user_id: int | None
) -> None:
    DeadLetter.objects.filter(pk__in=[row.pk for row in rows]).update(
        resolution=resolution, resolved_at=Now(), resolved_by=by, reason=reason.strip()
    )
    if user_id and rows:
        LogEntry.objects.log_actions(
            user_id,
            DeadLetter.objects.filter(pk__in=[row.pk for row in rows]),
            CHANGE,
            change_message=f"{resolution.label}: {reason.strip()}",
        )


def _deliverable(message_ids: Any) -> Any:
    return OutboxMessage.objects.filter(pk__in=list(message_ids)).values_list("pk", flat=True)


def _uuid_or_none(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _storable(text: str) -> str:
    """PostgreSQL keeps no NUL characters and no lone surrogates."""
    return text.replace("\x00", "\\x00").encode(errors="backslashreplace").decode()


def _json(value: Any) -> Any:
    return json.loads(_storable(json.dumps(value, default=repr)).replace("\\u0000", "\\\\x00"))
