"""
Message templates: Celery builds the message of each shape of canvas once, with slots in place of values.

`dispatch` and `transports` fill and send them.
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
import itertools
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import kombu
from celery import Celery
from celery.canvas import Signature
from celery.canvas import _chain as Chain
from celery.canvas import group as Group

SLOT, NUMBER_SLOT = re.compile(r"--slot-(\d+)--"), re.compile(r'"--number-(\d+)--"')
PLAIN = re.compile(r"[\w.:@+=,/ -]*", re.ASCII)
"""Values that are equal in JSON and in the Python representation that Celery puts into a header."""

LONGEST_ARGUMENTS = 500
"""Maximum length of a task's arguments, in characters. Celery shortens the representation of longer ones."""


@dataclasses.dataclass(frozen=True)
class Sending:
    """A canvas, and the headers that every signature in it carries."""

    canvas: Signature
    headers: Mapping[str, str | int]


def signatures_in(canvas: Signature) -> Iterable[Signature]:
    """Yield the tasks of a canvas. Headers set on a chain would reach its first task only."""
    if isinstance(canvas, Chain | Group):
        for part in canvas.tasks:
            yield from signatures_in(part)
    else:
        yield canvas


class Shape(NamedTuple):
    """The tasks of a canvas, the names of their arguments and headers, and the types of the headers."""

    tasks: tuple[tuple[str, tuple[str, ...]], ...]
    headers: tuple[str, ...]
    kinds: tuple[type, ...]

    @property
    def slots(self) -> int:
        """The number of values in a canvas of this shape, without the ids of its tasks."""
        return sum(len(names) for _, names in self.tasks) + len(self.headers)

    def with_slots(self, app: Celery) -> Sending:
        """Return a canvas of this shape with a slot for each value, followed by one for each task id."""
        numbers = itertools.count()
        kwargs = [{name: f"--slot-{next(numbers)}--" for name in names} for _, names in self.tasks]
        headers = {
            name: f"--{'number' if kind is int else 'slot'}-{next(numbers)}--"
            for name, kind in zip(self.headers, self.kinds, strict=True)
        }
        signatures = [
            app.signature(task, kwargs=arguments, immutable=True, headers=dict(headers)).set(
                task_id=f"--slot-{next(numbers)}--"
            )
            for (task, _), arguments in zip(self.tasks, kwargs, strict=True)
        ]
        return Sending(Chain(*signatures, app=app) if len(signatures) > 1 else signatures[0], headers)


def read(sending: Sending) -> tuple[Shape, list[str]] | None:
    """Return the shape and the values of a simple task or chain; None if it has other arguments or options."""
    canvas, headers = sending.canvas, sending.headers
    tasks: list[tuple[str, tuple[str, ...]]] = []
    values: list[Any] = []
    for signature in canvas["kwargs"]["tasks"] if type(canvas) is Chain else [canvas]:
        if not _is_simple(signature):
            return None
        kwargs = signature["kwargs"]
        tasks.append((signature["task"], tuple(kwargs)))
        values += kwargs.values()
    kinds = tuple(map(type, headers.values()))
    if not TEXT.issuperset(map(type, values)) or not TEXT_OR_NUMBER.issuperset(kinds):
        return None
    if sum(map(len, values[: len(tasks[0][1])])) > LONGEST_ARGUMENTS:
        return None
    values += map(str, headers.values())
    if not PLAIN.fullmatch(" ".join(values)):
        return None
    return Shape(tuple(tasks), tuple(headers), kinds), values


TEXT, TEXT_OR_NUMBER = frozenset({str}), frozenset({str, int})


def _is_simple(signature: Signature) -> bool:
    return (
        type(signature) is Signature
        and signature["immutable"]
        and not signature["args"]
        and not signature["options"]
        and not signature["subtask_type"]
    )


def new_ids(number: int) -> list[str]:
    """Return random ids like those of `uuid.uuid4` (RFC 9562, section 5.4), in a fraction of the time."""
    digits = os.urandom(16 * number).hex()
    return [
        f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-4{digits[at + 13 : at + 16]}"
        f"-{'89ab'[int(digits[at + 16], 16) % 4]}{digits[at + 17 : at + 20]}-{digits[at + 20 : at + 32]}"
        for at in range(0, 32 * number, 32)
    ]


class Text:
    """A JSON text with slots."""

    def __init__(self, text: str) -> None:
        # The first number is repeated, because `itemgetter` returns no tuple for a single item.
        parts = SLOT.split(NUMBER_SLOT.sub(r"--slot-\1--", text))
        self._format = "%.0s" + "%s".join(part.replace("%", "%%") for part in parts[::2])
        numbers = [int(number) for number in parts[1::2]]
        self._in_order = operator.itemgetter(numbers[0], *numbers)

    def fill(self, values: Sequence[str]) -> str:
        return self._format % self._in_order(values)


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A message as Celery passes it to the transport."""

    body: str
    rest: dict[str, Any]
    exchange: str
    routing_key: str
    declare: Sequence[Any]


PUBLISH = inspect.signature(kombu.Producer._publish)
PREPARED = ("priority", "content_type", "content_encoding", "headers", "properties")
"""The arguments from which a transport prepares a message, besides its body."""


class Recorder(kombu.Producer):
    """Records a message that Celery publishes, instead of sending it."""

    recorded: Recorded

    def __deepcopy__(self, memo: object) -> Self:
        return self  # a chain copies its tasks with all their options

    def _publish(self, *positional: Any, **named: Any) -> None:
        given = PUBLISH.bind(self, *positional, **named).arguments
        rest = {name: given[name] for name in PREPARED}
        self.recorded = Recorded(
            given["body"], rest, given["exchange"], given["routing_key"], tuple(given["declare"] or ())
        )


class Template(abc.ABC):
    """The message that Celery sends for one shape, with slots for the values and the task ids."""

    def __init__(self, shape: Shape, app: Celery, channel: Any, *, send: Callable[[Sending], None]) -> None:
        """`send` sends a canvas as Celery does. It is called once, with a producer that only records."""
        sending, recorder = shape.with_slots(app), Recorder(channel, auto_declare=False)
        # An option of the first task, because Celery's chain drops a producer it is given.
        next(iter(signatures_in(sending.canvas))).set(producer=recorder)
        send(sending)
        self.recorded = recorder.recorded
        self.is_usable = _adds_nothing(self.recorded.rest["headers"], sending.headers)
        self.body = Text(self.recorded.body)
        self.tasks = len(shape.tasks)
        self.first_free_slot = shape.slots + self.tasks

    @abc.abstractmethod
    def fill(self, values: list[str]) -> Any:
        """Return a message for `put`, with a new id for each task."""

    @staticmethod
    @abc.abstractmethod
    def put(connection: Any, messages: Sequence[Any], *, app: Celery) -> list[Any]:
        """Send messages over a kombu connection; return those that no queue accepted in the end."""


def _adds_nothing(sent: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """
    Whether the headers come from Celery and the outbox only.

    A tracing library may add headers to each message; a template would repeat those of the first one.
    """
    return sent.keys() - ours.keys() <= CELERYS_HEADERS and all(sent[name] == ours[name] for name in ours)


CELERYS_HEADERS = {
    "argsrepr", "eta", "expires", "group", "group_index", "id", "ignore_result", "kwargsrepr", "lang", "origin",
    "parent_id", "replaced_task_nesting", "retries", "root_id", "shadow", "stamped_headers", "stamps", "task",
    "timelimit",
}  # fmt: skip
"""The headers of Celery's message protocol, version 2."""
