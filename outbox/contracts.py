"""
The base class of all events, and the envelope that carries a published event.

Each app declares its own events in its `contracts` module.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeAlias

Payload: TypeAlias = dict[str, Any]
Upcaster: TypeAlias = Callable[[Payload], Payload]


class UnreadableEvent(Exception):
    """A stored payload does not fit the contract it names, even after upcasting."""


PLAIN = frozenset({str, int, float, bool, type(None)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """
    A fact in the past tense.

    A subclass has a `name` that is unique in the project. `key_field` names the field that identifies the
    subject of the event, if it has one. A published version never changes: to change the fields, the subclass
    increments `version` and adds a function to `upcasters` that turns a payload of version n into one of n + 1.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    key_field: ClassVar[str] = ""
    upcasters: ClassVar[Mapping[int, Upcaster]] = {}

    @property
    def key(self) -> str:
        """The id of the event's subject, for example of the order; empty without a `key_field`."""
        return str(getattr(self, self.key_field)) if self.key_field else ""

    def payload(self) -> Payload:
        """The event's fields as plain JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # Most events have plain values only, which need not be copied.
        return values if all(type(value) in PLAIN for value in values.values()) else dataclasses.asdict(self)

    @classmethod
    def from_payload(cls, payload: Payload, *, version: int) -> Self:
        """
        Read a stored payload of any version.

        Unknown fields are ignored, so that rows written by newer code can be read.

        Raises:
            UnreadableEvent: if a field is missing, or an upcaster from `version` to the current one.
        """
        for step in range(version, cls.version):
            upcast = cls.upcasters.get(step)
            if upcast is None:
                raise UnreadableEvent(f"{cls.name}: no upcaster from version {step}")
            payload = upcast(payload)
        fields = dataclasses.fields(cls)
        missing = [
            field.name
            for field in fields
            if field.name not in payload
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise UnreadableEvent(f"{cls.name} version {version} lacks {', '.join(missing)}")
        return cls(**{field.name: payload[field.name] for field in fields if field.name in payload})


REPLAYS = "replays"
"""The key in a stored trace that holds the traces of replays, by the replayed workflow or a prefix of it."""


def trace_of(trace: Mapping[str, Any], workflow: str) -> Mapping[str, str]:
    """Return the trace of a delivery, from that of its message: after a replay it has a trace of its own."""
    if REPLAYS not in trace:
        return trace
    replays: Mapping[str, Mapping[str, str]] = trace[REPLAYS]
    if of_workflow := [name for name in replays if workflow.startswith(name)]:
        return replays[max(of_workflow, key=len)]
    return {name: value for name, value in trace.items() if name != REPLAYS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
    """A published event with its message id, its origin, and the number of its redeliveries."""

    id: uuid.UUID
    event: Event
    correlation_id: str
    causation_id: str
    created_at: dt.datetime
    trace: Mapping[str, str] = dataclasses.field(default_factory=dict)
    redeliveries: int = 0

    @classmethod
    def of(cls, row: Any, event: Event) -> Message:
        """Return the envelope of a stored message; `row` has its columns as attributes."""
        return cls(
            id=row.id,
            event=event,
            correlation_id=row.correlation_id,
            causation_id=row.causation_id,
            created_at=row.created_at,
            trace=trace_of(row.trace, getattr(row, "redelivers", "")),
            redeliveries=row.redeliveries,
        )

    @property
    def key(self) -> str:
        return self.event.key

    def headers(self, *, workflow: str, generation: int | None = None) -> dict[str, str | int]:
        """
        Return the headers of every task of this message's workflows: ids and trace context, no personal data.

        `generation` distinguishes the copies of a delivery; None if the delivery is not followed (see
        `deliveries`).
        """
        return {
            "message_id": str(self.id),
            "x_correlation_id": self.correlation_id,
            "causation_id": self.causation_id,
            "workflow": workflow,
            **({} if generation is None else {"generation": generation}),
            **self.trace,
        }
