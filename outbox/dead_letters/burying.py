"""
Burying: unfinished work is stored as an open dead letter.

Workers, the relay and adapters all use this module. `resolving` closes dead letters.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import traceback as tracebacks
import uuid
from types import TracebackType
from typing import Any

from django.db import connection, transaction

from outbox import telemetry
from outbox.conf import settings
from outbox.database import storable
from outbox.database.statements import Table, columns
from outbox.dead_letters import campaigns
from outbox.models import DeadLetter, OutboxMessage

MOST_ATTEMPTS = 2**31 - 1
"""The largest number for the column. A broker may claim any number of deliveries."""


LONGEST_NAME = 200
"""Maximum length of the names of consumers, workflows, keys and the like; see the models."""


NEWEST_WINS = (
    "error_class",
    "error",
    "traceback",
    "fingerprint",
    "payload",
    "headers",
    "worker",
    "task_id",
)
"""The columns of an unresolved dead letter that are replaced when the same work is buried again."""


BURY = f"""
{Table(DeadLetter).insert("dead_letters")}
ON CONFLICT (digest) WHERE resolution IN ('open', 'replaying') DO UPDATE SET
    {", ".join(f"{column} = EXCLUDED.{column}" for column in NEWEST_WINS)},
    attempts = EXCLUDED.attempts + CASE WHEN outbox_deadletter.resolution = 'replaying'
                                   THEN outbox_deadletter.attempts ELSE 0 END,
    resolution = 'open', resolved_at = NULL, resolved_by = '', reason = ''
RETURNING {columns(DeadLetter, of="outbox_deadletter")}
"""
# One statement, because between two statements somebody could resolve the dead letter that the second one
# updates. A replay counts its own attempts, so they are added to the earlier ones.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """
    Everything that is known about a failure.

    Unknown fields stay empty. `body` distinguishes messages that cannot be read.
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
        """Describe an exception; `known` holds the other fields."""
        return cls(
            error_class=type(error).__name__,
            error=storable.error(error),
            traceback=storable.traceback(error),
            site=site_of(error.__traceback__),
            **known,
        )


def site_of(trace: TracebackType | None) -> str:
    """Return the innermost frame of a traceback that belongs to this project, as `module:function`."""
    site = ""
    for frame, _ in tracebacks.walk_tb(trace):
        module = frame.f_globals.get("__name__", "")
        if module.split(".")[0] in settings.PROJECT_PACKAGES:
            site = f"{module}:{frame.f_code.co_name}"
    return site


def fingerprint(consumer: str, error_class: str, site: str) -> str:
    """Return what dead letters of the same cause share; `site` comes from `site_of`."""
    cause = f"{_name(consumer)}|{_name(error_class)}|{site}"
    return hashlib.sha1(cause.encode(), usedforsecurity=False).hexdigest()


def bury(failure: Failure) -> DeadLetter:
    """
    Store a failure as an open dead letter. Burying the same work again updates its unresolved dead letter.

    A dead letter that was being replayed is opened again. Values that cannot be stored unchanged are converted
    (see `storable`), so no failure is lost.
    """
    message_id = _uuid_or_none(failure.message_id)
    consumer, error_class = _name(failure.consumer), _name(failure.error_class)
    payload = storable.json(failure.payload)
    # Many messages may share an invalid id, such as `NaN`.
    identity = (message_id and failure.message_id) or failure.body or failure.message_id
    row = DeadLetter(
        source=failure.source,
        consumer=consumer,
        message_id=message_id,
        workflow=_name(failure.workflow),
        task_id=_name(failure.task_id),
        error_class=error_class,
        error=storable.text(failure.error),
        traceback=storable.ending(failure.traceback),
        fingerprint=fingerprint(consumer, error_class, failure.site),
        payload=payload,
        headers=storable.json(failure.headers),
        attempts=min(failure.attempts, MOST_ATTEMPTS),
        worker=_name(failure.worker),
        digest=hashlib.sha256(
            f"{consumer}|{storable.text(identity) or json.dumps(payload)}".encode()
        ).hexdigest(),
        key=_name(failure.key),
    )
    message = OutboxMessage.objects.filter(pk=message_id).first() if message_id else None
    if message:
        row.key, row.event_name = message.key, message.event_name
    with transaction.atomic():
        kept = _keep(row)
        failed_again = campaigns.end([kept], campaigns.FAILED)
    telemetry.emit(
        "message.buried",
        consumer=row.consumer,
        message_id=str(message_id or ""),
        key=message.key if message else "",  # a key from an unknown message may be personal data
        error_class=row.error_class,
        fingerprint=row.fingerprint,
        attempts=kept.attempts,
        failed_again=bool(failed_again),
    )
    return kept


def _keep(row: DeadLetter) -> DeadLetter:
    with connection.cursor() as cursor:
        cursor.execute(BURY, {"dead_letters": Table(DeadLetter).as_json([row])})
        kept = cursor.fetchone()
    return DeadLetter.from_db(
        connection.alias, [field.attname for field in DeadLetter._meta.concrete_fields], kept
    )


def _uuid_or_none(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _name(text: str) -> str:
    return storable.text(text, longest=LONGEST_NAME)
