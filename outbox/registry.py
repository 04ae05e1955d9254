"""
Which events exist and which workflows each one starts.

Filled by every app in `apps.ready()`; the relay is its only reader. Nothing is discovered by magic.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from django.db.models import QuerySet

from outbox.contracts import Event, Message, Payload

if TYPE_CHECKING:
    from outbox.models import Restore

Handler: TypeAlias = Callable[[Message], Any]
"""A message in, a Celery canvas out; None when there is nothing to do. Pure: no query, no call."""

Subscription: TypeAlias = tuple[type[Event], Handler]
Spent: TypeAlias = Callable[[dt.datetime], "QuerySet[Any, Any]"]
"""A moment in, the rows that may be deleted then."""

Hold: TypeAlias = Callable[[], "QuerySet[Any, Any]"]


class NotAContract(TypeError):
    """A class is no event that can be stored and read again. Correct the class; never catch this."""


class UnknownEvent(Exception):
    """No code here knows this event, or not this version of it; the message is parked, not dropped."""


class UnknownWorkflow(Exception):
    """No code here knows a workflow that is to be started. Newer or older code may."""


class Ambiguous(Exception):
    """Two events share a name, or a workflow was handed over twice: a mistake in `apps.ready()`."""


_events: dict[str, type[Event]] = {}
_workflows: dict[str, dict[str, Handler]] = {}
_holds: list[Hold] = []
_spent: dict[str, Spent] = {}
_restore_hooks: list[Callable[[Restore], None]] = []


def register(events: Iterable[type[Event]]) -> None:
    """
    Make events known.

    Raises:
        NotAContract: if one is no dataclass with a name, or its `key_field` is none of its fields.
        Ambiguous: if another event has the name already.
    """
    for event in events:
        _check(event)
        if _events.setdefault(event.name, event) is not event:
            raise Ambiguous(f"{event.name} is the name of two events")


def _check(event: type[Event]) -> None:
    if not (isinstance(event, type) and issubclass(event, Event) and "__dataclass_params__" in vars(event)):
        raise NotAContract(
            f"{event!r}: decorate a subclass of Event with @dataclasses.dataclass(frozen=True, kw_only=True)"
        )
    if not getattr(event, "name", ""):
        raise NotAContract(f'{event.__qualname__} has no name: add name = "{event.__module__.split(".")[0]}.…"')
    fields = [field.name for field in dataclasses.fields(event)]
    if event.key_field and event.key_field not in fields:
        raise NotAContract(
            f"{event.name}: key_field is {event.key_field!r}, which is none of its fields: {', '.join(fields)}"
        )


def subscribe(subscriptions: Sequence[Subscription]) -> None:
    """
    Let each handler start its workflow for each message of its event.

    Raises:
        Ambiguous: if the same handler is subscribed to the same event twice.
    """
    for event, handler in subscriptions:
        register([event])
        workflows = _workflows.setdefault(event.name, {})
        name = workflow_name(handler)
        if name in workflows:
            raise Ambiguous(f"{name} is subscribed to {event.name} twice")
        workflows[name] = handler


def hold(messages: Hold) -> None:
    """Keep the messages whose ids the query returns from retention, for example those of open orders."""
    _holds.append(messages)


def holds() -> list[QuerySet[Any, Any]]:
    """The queries handed to `hold`, made anew."""
    return [query() for query in _holds]


def expire(name: str, rows: Spent) -> None:
    """Let retention delete these rows of an app too, and count them under `name`."""
    _spent[name] = rows


def expired(now: dt.datetime) -> dict[str, QuerySet[Any, Any]]:
    """The rows handed to `expire` that may be deleted now, by name."""
    return {name: rows(now) for name, rows in _spent.items()}


def on_restore(hook: Callable[[Restore], None]) -> None:
    """Call this, in the transaction that notes it, when the database went back in time."""
    if hook not in _restore_hooks:
        _restore_hooks.append(hook)


def restored(restore: Restore) -> None:
    """Call what was handed to `on_restore`."""
    for hook in _restore_hooks:
        hook(restore)


def workflow_name(handler: Handler) -> str:
    """The dotted name a workflow has in headers, dead letters and redeliveries."""
    return f"{handler.__module__}.{handler.__qualname__}"


def workflows_starting_with(beginning: str) -> list[tuple[str, str]]:
    """The workflows whose name starts so, each with the name of its event."""
    return [
        (event, name) for event, known in _workflows.items() for name in known if name.startswith(beginning)
    ]


def is_known(name: str, version: int) -> bool:
    """Whether `load` can read this event in this version."""
    return name in _events and version <= _events[name].version


def known_events() -> dict[str, int]:
    """The newest version of every known event, by name."""
    return {name: event.version for name, event in _events.items()}


def load(name: str, version: int, payload: Payload) -> Event:
    """
    Turn a stored row back into its event.

    Raises:
        UnknownEvent: if the name is not registered or the version is newer than this code.
        outbox.contracts.UnreadableEvent: if the payload does not fit.
    """
    if not is_known(name, version):
        known = _events[name].version if name in _events else None
        newest = f"this code knows version {known}" if known else "this code does not know the event"
        raise UnknownEvent(f"{name} version {version}: {newest}")
    return _events[name].from_payload(payload, version=version)


def workflows_for(event: Event, *, only: Sequence[str] = ()) -> dict[str, Handler]:
    """The workflows an event starts, by name; a redelivery narrows them by the beginnings in `only`."""
    workflows = _workflows.get(event.name, {})
    return {name: handler for name, handler in workflows.items() if not only or name.startswith(tuple(only))}
