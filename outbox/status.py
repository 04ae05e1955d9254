"""
The state of the outbox in numbers, for `outbox_status`, and of what other apps add to it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from celery import current_app
from django.db import connection
from django.db.models import Count
from kombu.exceptions import OperationalError as BrokerError

from outbox import periodic, processes
from outbox.broker import inspection
from outbox.database import clock
from outbox.models import DeadLetter, Delivery, OutboxMessage
from outbox.verification import restores

if TYPE_CHECKING:
    from rich.text import Text

MOST_COUNTED = 10_000
"""Rows that are counted exactly. A larger number is shown as "more than"."""


@dataclasses.dataclass(frozen=True)
class Section:
    """What another app adds to the status."""

    name: str
    """Its key in the JSON."""
    read: Callable[[], Any]
    """Returns its value now, as JSON."""
    rows: Callable[[Any], Iterable[tuple[str, str | Text]]]
    """Turns that value into rows of the table: what, and how it is."""


_sections: dict[str, Section] = {}


def add(*sections: Section) -> None:
    """Add sections to the status, in `apps.ready()`. A section replaces an earlier one of the same name."""
    _sections.update({section.name: section for section in sections})


def sections() -> list[Section]:
    """All sections that were added."""
    return list(_sections.values())


def read() -> dict[str, Any]:
    """Read all numbers now. If the broker does not answer, its part says so and the rest is complete."""
    minute_ago = clock.now() - dt.timedelta(minutes=1)
    return {
        "pending": _count(OutboxMessage.objects.undelivered())
        + _count(Delivery.objects.filter(status=Delivery.Status.WAITING)),
        "oldest_due_seconds": oldest_due_seconds(),
        "published_last_minute": _count(OutboxMessage.objects.filter(published_at__gte=minute_ago)),
        "parked": _count(OutboxMessage.objects.filter(status=OutboxMessage.Status.PARKED)),
        "dead_letters": dict(
            DeadLetter.objects.open()
            .order_by("consumer")
            .values_list("consumer")
            .annotate(dead_letters=Count("pk"))
        ),
        "queues": _queues(),
        "wrong_keys": _wrong_keys(),
        "restore": restore(),
        "processes": [standing.as_json() for standing in processes.standings()],
        "periodic_tasks": [standing.as_json() for standing in periodic.standings()],
        **{section.name: section.read() for section in sections()},
    }


OLDEST_DUE = """
    SELECT extract(epoch FROM statement_timestamp() - least(
        (SELECT min(not_before) FROM outbox_outboxmessage
         WHERE status = 'pending' AND not_before <= statement_timestamp()),
        (SELECT min(not_before) FROM outbox_delivery
         WHERE status = 'waiting' AND not_before <= statement_timestamp())
    ))
"""
"""For how many seconds the oldest message, or redelivery to one workflow, has been due; NULL: nothing is."""


def oldest_due_seconds() -> float:
    """For how long the oldest message, or redelivery to one workflow, has been due; 0 when nothing is."""
    with connection.cursor() as cursor:
        cursor.execute(OLDEST_DUE)
        return round(float(cursor.fetchone()[0] or 0), 1)


def restore() -> dict[str, Any] | None:
    """The restore or failover that was noted last, and how far its data go; None if none ever was."""
    newest = restores.newest()
    if newest is None:
        return None
    noted_at = newest.noted_at.isoformat(timespec="seconds")
    data_until = newest.data_until and newest.data_until.isoformat(timespec="seconds")
    is_compared = restores.comparisons(newest).exists()
    return {
        "noted_at": noted_at,
        "noted_by": newest.noted_by,
        "data_until": data_until,
        "is_failover": newest.is_failover,
        "evidence": newest.evidence,
        "is_compared": is_compared,
        "says": f"noted {noted_at} by {newest.noted_by}: {newest.evidence}; data until "
        f"{data_until or 'an unknown time'}; {'compared' if is_compared else 'not yet compared'} with the "
        "providers. See “After a restore” in docs/operations.md",
    }


def _count(rows: Any) -> int:
    return rows[: MOST_COUNTED + 1].count()


def _queues() -> dict[str, int] | str:
    try:
        return {queue: inspection.waiting(queue) for queue in current_app.amqp.queues}
    except (BrokerError, OSError) as error:
        return f"the broker does not answer: {error}"


def _wrong_keys() -> dict[str, str]:
    try:
        return inspection.wrong_keys()
    except (BrokerError, OSError):
        return {}  # `queues` says so
