"""
What can be said: the base of all events, and the envelope a published event travels in.

No event of an application lives here; each app declares its own in its `contracts`.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """
    A fact in the past tense.

    A subclass has a `name` that is unique in the project. `key_field` names the field that says what the
    event is about, if there is one. Once a published version has to change, the subclass increments `version`
    and adds a function to `upcasters` that turns a payload of version n into one of n + 1. A published version
    never changes.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    key_field: ClassVar[str] = ""
    upcasters: ClassVar[Mapping[int, Upcaster]] = {}

    @property
    def key(self) -> str:
        """What the event is about, for example the order's id; empty without a `key_field`."""
        return str(getattr(self, self.key_field)) if self.key_field else ""

    def payload(self) -> Payload:
        """The event's fields as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_payload(cls, payload: Payload, *, version: int) -> Self:
        """
        Read a stored payload, however old.

        Fields this code does not know are dropped, so that a row written by newer code can be read.

        Raises:
            UnreadableEvent: if a field is missing or no upcaster leads from `version` to today's.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
    """An event on its way: the fact with its id, where it comes from, and how often it was redelivered."""

    id: uuid.UUID
    event: Event
    correlation_id: str
    causation_id: str
    created_at: dt.datetime
    trace: Mapping[str, str] = dataclasses.field(default_factory=dict)
    redeliveries: int = 0

    @classmethod
    def of(cls, row: Any, event: Event) -> Message:
        """The envelope of a stored message; `row` has its columns as attributes."""
        return cls(
            id=row.id,
            event=event,
            correlation_id=row.correlation_id,
            causation_id=row.causation_id,
            created_at=row.created_at,
            trace=row.trace,
            redeliveries=row.redeliveries,
        )

    @property
    def key(self) -> str:
        return self.event.key

    def headers(self, *, workflow: str, generation: int | None = None) -> dict[str, str | int]:
        """
        What every task of this message's workflows carries: ids and trace context, no personal data.

        `generation` tells copies of a delivery apart; None if nobody follows it (see `deliveries`).
        """
        return {
            "message_id": str(self.id),
            "x_correlation_id": self.correlation_id,
            "causation_id": self.causation_id,
            "workflow": workflow,
            **({} if generation is None else {"generation": generation}),
            **self.trace,
        }
