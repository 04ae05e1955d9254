"""
The number of copies of each message that went to each of its workflows, and the reason for every extra copy.

A trigger in the drill's own database records each copy when its delivery is inserted or sent again. It sees the
work of all relays, and its records outlive the deliveries. Copies that are not new to the system do not count:
redeliveries by the broker, quick retries, and messages that a relay sends again because it could not record
that they were sent.
"""

from __future__ import annotations

import collections
import dataclasses
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import connection

from orderflow.chaos.assessment.recovery import InjectedFault
from outbox import registry
from outbox.broker import dispatch
from outbox.models import Attempt, Delivery, OutboxMessage

MOST_UNEXPLAINED = 0.01
"""The share of all deliveries that may be copied without a reason."""

EXPLAIN = frozenset(
    {
        "kill-worker",
        "kill-relay",
        "kill-child",
        "pause-worker",
        "broker-down",
        "broker-restart",
        "broker-forgets",
        "kill-leader",
        "db-restart",
        "duplicate-delivery",
        "clock-jump",
    }
)
"""The faults after which a copy may be lost, or be considered lost. Slowness, refusals and a wrong clock are no
reason for another copy."""

PLANNED = (Attempt.Outcome.POSTPONED, Attempt.Outcome.WAITED)
"""The outcomes of an attempt that request one more copy and end the one that was tried."""

RECORD_COPIES = f"""
CREATE TABLE chaos_copy (
    message_id uuid NOT NULL, workflow text NOT NULL, at timestamptz NOT NULL DEFAULT statement_timestamp()
);
CREATE FUNCTION chaos_note_copy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_copy (message_id, workflow) VALUES (NEW.message_id, NEW.workflow);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_first_copy AFTER INSERT ON {Delivery._meta.db_table}
    FOR EACH ROW WHEN (NEW.status = 'sent') EXECUTE FUNCTION chaos_note_copy();
CREATE TRIGGER chaos_another_copy AFTER UPDATE OF status, generation ON {Delivery._meta.db_table}
    FOR EACH ROW WHEN (NEW.status = 'sent' AND (OLD.status, OLD.generation) <> (NEW.status, NEW.generation))
    EXECUTE FUNCTION chaos_note_copy();
"""  # noqa: S608 - the table's own name

Pair = tuple[uuid.UUID, str]
"""A message, and the name of a workflow."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copied:
    """A message of which more copies went to one workflow than its planned waits requested."""

    message_id: str
    workflow: str
    copies: int
    planned: int
    """Copies that its planned waits requested, each in place of the previous one."""
    explained: int
    """Of the other copies, how many are explained by a fault."""

    @property
    def unexplained(self) -> int:
        return self.copies - 1 - self.planned - self.explained

    def __str__(self) -> str:
        return (
            f"{self.message_id} to {self.workflow}: {self.copies} copies, {self.planned} after planned waits, "
            f"{self.explained} explained by faults"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copies:
    """The recorded deliveries, their copies, and those that were copied more than once."""

    deliveries: int
    copies: int
    planned: int
    copied: Sequence[Copied]

    @property
    def unexplained(self) -> int:
        return sum(one.unexplained for one in self.copied)

    @property
    def explained(self) -> int:
        return sum(one.explained for one in self.copied)

    @property
    def are_too_many(self) -> bool:
        return self.unexplained > MOST_UNEXPLAINED * self.deliveries

    def worst(self) -> list[Copied]:
        """The deliveries with unexplained copies, the worst first."""
        without = [one for one in self.copied if one.unexplained]
        return sorted(without, key=lambda one: one.unexplained, reverse=True)

    def as_json(self) -> dict[str, Any]:
        return {
            "deliveries": self.deliveries,
            "copies": self.copies,
            "planned": self.planned,
            "explained": self.explained,
            "unexplained": self.unexplained,
            "copied": [dataclasses.asdict(one) | {"unexplained": one.unexplained} for one in self.copied],
        }


def install_trigger() -> None:
    """Install the trigger. Only for the drill's own database: nothing removes it."""
    with connection.cursor() as cursor:
        cursor.execute(RECORD_COPIES)


def count(injected: Sequence[InjectedFault]) -> Copies:
    """Read the recorded copies, and compare them with the planned waits and the injected faults."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT message_id, workflow, extract(epoch FROM at)::float FROM chaos_copy ORDER BY at")
        rows = cursor.fetchall()
    sent: dict[Pair, list[float]] = {}
    for message_id, workflow, at in rows:
        sent.setdefault((message_id, workflow), []).append(at)
    more = {pair: times for pair, times in sent.items() if len(times) > 1}
    return judge(len(sent), more, planned_waits(more), injected)


def judge(
    deliveries: int,
    more: Mapping[Pair, Sequence[float]],
    waits: Mapping[Pair, int],
    injected: Sequence[InjectedFault],
) -> Copies:
    """
    Judge deliveries with more than one copy, each with the times of its copies, ascending.

    A fault explains one more copy of a message that had a copy before the fault was over, and only a later
    copy.
    """
    faults = [one.in_force for one in injected if not one.problem and one.fault.kind in EXPLAIN]
    copied = []
    for pair, times in more.items():
        planned = min(waits.get(pair, 0), len(times) - 1)
        extra = len(times) - 1 - planned
        if extra:
            reasons = sum(times[0] <= back and began <= times[-1] for began, back in faults)
            copied.append(_copied(pair, copies=len(times), planned=planned, explained=min(extra, reasons)))
    return Copies(
        deliveries=deliveries,
        copies=deliveries + sum(len(times) - 1 for times in more.values()),
        planned=sum(min(waits.get(pair, 0), len(times) - 1) for pair, times in more.items()),
        copied=copied,
    )


def _copied(pair: Pair, *, copies: int, planned: int, explained: int) -> Copied:
    return Copied(
        message_id=str(pair[0]), workflow=pair[1], copies=copies, planned=planned, explained=explained
    )


def planned_waits(pairs: Iterable[Pair]) -> dict[Pair, int]:
    """How often each of these deliveries was postponed by its own tasks, or by the relay."""
    wanted = collections.defaultdict[uuid.UUID, list[str]](list)
    for message_id, workflow in pairs:
        wanted[message_id].append(workflow)
    put_off = collections.Counter(
        Attempt.objects.filter(message_id__in=wanted, outcome__in=PLANNED).values_list("message_id", "consumer")
    )
    return {
        (row.pk, workflow): sum(put_off[row.pk, consumer] for consumer in _consumers(row, workflow))
        for row in OutboxMessage.objects.filter(pk__in=wanted)
        for workflow in wanted[row.pk]
    }


def _consumers(row: OutboxMessage, workflow: str) -> set[str]:
    """The names under which a delivery can be postponed: the tasks of the workflow, and the relay."""
    message = row.message(registry.load(row.event_name, row.event_version, row.payload))
    canvas = registry.workflows_for(message.event, only=[workflow])[workflow](message)
    tasks = [] if canvas is None else dispatch.signatures_in(canvas)
    return {"outbox.relay", *(signature["task"] for signature in tasks)}
