"""
The known events, and the workflows that each of them starts.

Every app registers its own in `apps.ready()`; the relay reads them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from django.db.models import QuerySet

from outbox.contracts import Event, Message, Payload

if TYPE_CHECKING:
    from outbox.models import Restore

Handler: TypeAlias = Callable[[Message], Any]
"""Takes a message and returns a Celery canvas, or None if there is nothing to do. Pure: no query, no call."""

Subscription: TypeAlias = tuple[type[Event], Handler]
Spent: TypeAlias = Callable[[dt.datetime], "QuerySet[Any, Any]"]
"""Takes a time and returns the rows that may be deleted at that time."""

Hold: TypeAlias = Callable[[], "QuerySet[Any, Any]"]


class NotAContract(TypeError):
    """A class is not a valid event. Correct the class; do not catch this error."""


class UnknownEvent(Exception):
    """This code does not know the event or its version. The message is parked, not dropped."""


class UnknownWorkflow(Exception):
    """This code does not know the workflow that is to be started. Newer or older code may."""


class Ambiguous(Exception):
    """Two events share a name, or a workflow is subscribed twice: a mistake in `apps.ready()`."""


_events: dict[str, type[Event]] = {}
_workflows: dict[str, dict[str, Handler]] = {}
_holds: list[Hold] = []
_spent: dict[str, Spent] = {}
_restore_hooks: list[Callable[[Restore], None]] = []


def register(events: Iterable[type[Event]]) -> None:
    """
    Register events.

    Raises:
        NotAContract: if one is not a dataclass with a name, or its `key_field` is not one of its fields.
        Ambiguous: if another event already has the name.
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
        known = ", ".join(fields)
        raise NotAContract(
            f"{event.name}: key_field is {event.key_field!r}, which is not one of its fields: {known}"
        )


def key_in(kwargs: Mapping[str, Any]) -> Any:
    """Return the first of a task's keyword arguments that is the key of a known event; None without one."""
    fields = {event.key_field for event in _events.values()} - {""}
    return next((value for name, value in kwargs.items() if name in fields), None)


def subscribe(subscriptions: Sequence[Subscription]) -> None:
    """
    Subscribe handlers to events: each starts its workflow for each message of its event.

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
    """Exclude from pruning the messages whose ids the query returns, for example those of unfinished work."""
    _holds.append(messages)


def holds() -> list[QuerySet[Any, Any]]:
    """Return the queries registered with `hold`, newly built."""
    return [query() for query in _holds]


def expire(name: str, rows: Spent) -> None:
    """Have pruning delete these rows of an app too, counted under `name`."""
    _spent[name] = rows


def expired(now: dt.datetime) -> dict[str, QuerySet[Any, Any]]:
    """Return the rows registered with `expire` that may be deleted now, by name."""
    return {name: rows(now) for name, rows in _spent.items()}


def on_restore(hook: Callable[[Restore], None]) -> None:
    """Call `hook` when a restore of the database is recorded, in the same transaction."""
    if hook not in _restore_hooks:
        _restore_hooks.append(hook)


def restored(restore: Restore) -> None:
    """Call the hooks registered with `on_restore`."""
    for hook in _restore_hooks:
        hook(restore)


def workflow_name(handler: Handler) -> str:
    """Return the dotted name of a workflow in headers, dead letters and redeliveries."""
    return f"{handler.__module__}.{handler.__qualname__}"


def workflows_starting_with(beginning: str) -> list[tuple[str, str]]:
    """Return the workflows whose names start with `beginning`, as pairs of event and workflow name."""
    return [
        (event, name) for event, known in _workflows.items() for name in known if name.startswith(beginning)
    ]


def is_known(name: str, version: int) -> bool:
    """Return whether `load` can read this version of this event."""
    return name in _events and version <= _events[name].version


def known_events() -> dict[str, int]:
    """Return the newest version of every known event, by name."""
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
    """Return the workflows of an event, by name; `only` limits them to names with one of these prefixes."""
    workflows = _workflows.get(event.name, {})
    return {name: handler for name, handler in workflows.items() if not only or name.startswith(tuple(only))}
