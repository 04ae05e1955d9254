"""
How many copies of each message went to each of its workflows, and whether something explains every one.

A witness in the drill's own database notes each copy as its delivery is written down or sent again: a trigger,
which sees what all relays do, and forgets nothing when a delivery ends. Not counted are copies that are no new
ones to the system: those that a broker hands out again, quick tries, and what a relay sends again of which it
could not note that it was sent.
"""

from __future__ import annotations

import collections
import dataclasses
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import connection

from orderflow.chaos.assessment.recovery import Struck
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
"""The faults after which a copy may be lost, or thought lost. Being slow, refused or wrong about the time is no
reason for another one."""

PLANNED = (Attempt.Outcome.POSTPONED, Attempt.Outcome.WAITED)
"""The ends of a try that ask for one more copy, and end the one that was tried."""

WITNESS = f"""
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
    """A message of which more copies went to one workflow than its own waits asked for."""

    message_id: str
    workflow: str
    copies: int
    planned: int
    """Copies that its own waits asked for, each in the place of the one before."""
    explained: int
    """Of the others, how many a fault explains."""

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
    """What the witness saw: how many deliveries there were, of how many copies, and which were copied."""

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
        """The copied ones for which there is no reason, the worst first."""
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


def watch() -> None:
    """Put the witness in its place. Only for a database that is the drill's own: nobody takes it away."""
    with connection.cursor() as cursor:
        cursor.execute(WITNESS)


def count(struck: Sequence[Struck]) -> Copies:
    """Read what the witness saw, and hold it against the planned waits and the faults that struck."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT message_id, workflow, extract(epoch FROM at)::float FROM chaos_copy ORDER BY at")
        rows = cursor.fetchall()
    sent: dict[Pair, list[float]] = {}
    for message_id, workflow, at in rows:
        sent.setdefault((message_id, workflow), []).append(at)
    more = {pair: times for pair, times in sent.items() if len(times) > 1}
    return judge(len(sent), more, planned_waits(more), struck)


def judge(
    deliveries: int,
    more: Mapping[Pair, Sequence[float]],
    waits: Mapping[Pair, int],
    struck: Sequence[Struck],
) -> Copies:
    """
    Judge deliveries of which there was more than one copy, each with the times of its copies, ascending.

    A fault explains one more copy, of what had a copy before it was over; and only a later copy.
    """
    faults = [one.in_force for one in struck if not one.problem and one.fault.kind in EXPLAIN]
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
    """How often each of these deliveries was put off by its own tasks, or by the relay."""
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
    """Whose attempts put a delivery off: the tasks of the workflow, and the relay that starts them."""
    message = row.message(registry.load(row.event_name, row.event_version, row.payload))
    canvas = registry.workflows_for(message.event, only=[workflow])[workflow](message)
    tasks = [] if canvas is None else dispatch.signatures_in(canvas)
    return {"outbox.relay", *(signature["task"] for signature in tasks)}
