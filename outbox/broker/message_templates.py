"""
Messages from templates: Celery makes the message of each shape of canvas once, from slots instead of ids.

Used by `dispatch`, which says what a shape is good for, and by `transports`.
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
"""Values that look the same in JSON and in the representation of Python that Celery puts into a header."""

LONGEST_ARGUMENTS = 500
"""Characters of a task's arguments; Celery shortens the representation of those much longer, in a header."""


@dataclasses.dataclass(frozen=True)
class Sending:
    """A canvas, and the headers that every signature in it carries."""

    canvas: Signature
    headers: Mapping[str, str | int]


def signatures_in(canvas: Signature) -> Iterable[Signature]:
    """The tasks of a canvas: a chain's headers would reach its first task only."""
    if isinstance(canvas, Chain | Group):
        for part in canvas.tasks:
            yield from signatures_in(part)
    else:
        yield canvas


class Shape(NamedTuple):
    """Which tasks, with which names of arguments and headers, and which headers are numbers."""

    tasks: tuple[tuple[str, tuple[str, ...]], ...]
    headers: tuple[str, ...]
    kinds: tuple[type, ...]

    @property
    def slots(self) -> int:
        """How many values a canvas of this shape has, without the ids of its tasks."""
        return sum(len(names) for _, names in self.tasks) + len(self.headers)

    def with_slots(self, app: Celery) -> Sending:
        """A canvas of this shape with a slot for each value, and one for each task id after them."""
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
    """The shape and the values of a task, or a chain of tasks, with texts by keyword and nothing else."""
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
    """Random ids as `uuid.uuid4` makes them (RFC 9562, section 5.4), at a fraction of the time."""
    digits = os.urandom(16 * number).hex()
    return [
        f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-4{digits[at + 13 : at + 16]}"
        f"-{'89ab'[int(digits[at + 16], 16) % 4]}{digits[at + 17 : at + 20]}-{digits[at + 20 : at + 32]}"
        for at in range(0, 32 * number, 32)
    ]


class Text:
    """A JSON text with slots."""

    def __init__(self, text: str) -> None:
        # The first number twice: of one item alone, `itemgetter` makes no tuple.
        parts = SLOT.split(NUMBER_SLOT.sub(r"--slot-\1--", text))
        self._format = "%.0s" + "%s".join(part.replace("%", "%%") for part in parts[::2])
        numbers = [int(number) for number in parts[1::2]]
        self._in_order = operator.itemgetter(numbers[0], *numbers)

    def fill(self, values: Sequence[str]) -> str:
        return self._format % self._in_order(values)


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What Celery hands to the transport."""

    body: str
    rest: dict[str, Any]
    exchange: str
    routing_key: str
    declare: Sequence[Any]


PUBLISH = inspect.signature(kombu.Producer._publish)
PREPARED = ("priority", "content_type", "content_encoding", "headers", "properties")
"""What a transport prepares a message of, besides its body."""


class Recorder(kombu.Producer):
    """Notes what Celery publishes instead of sending it."""

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
    """What Celery sends for one shape, with slots where the values and the task ids belong."""

    def __init__(self, shape: Shape, app: Celery, channel: Any, *, send: Callable[[Sending], None]) -> None:
        """`send` is how Celery sends a canvas; it is asked once, and nothing is sent."""
        sending, recorder = shape.with_slots(app), Recorder(channel, auto_declare=False)
        # As an option of the first task: Celery's chain drops the producer it is given.
        next(iter(signatures_in(sending.canvas))).set(producer=recorder)
        send(sending)
        self.recorded = recorder.recorded
        self.is_usable = _adds_nothing(self.recorded.rest["headers"], sending.headers)
        self.body = Text(self.recorded.body)
        self.tasks = len(shape.tasks)
        self.first_free_slot = shape.slots + self.tasks

    @abc.abstractmethod
    def fill(self, values: list[str]) -> Any:
        """A message that `put` takes, with a new id for each task."""

    @staticmethod
    @abc.abstractmethod
    def put(link: Any, messages: Sequence[Any], *, app: Celery) -> list[Any]:
        """Send all of them by a connection of kombu's; return those that no queue took in the end."""


def _adds_nothing(sent: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """
    Whether nobody but Celery and we have a hand in the headers.

    A tracing library may write its own into each message; a template would repeat those of the first.
    """
    return sent.keys() - ours.keys() <= CELERYS_HEADERS and all(sent[name] == ours[name] for name in ours)


CELERYS_HEADERS = {
    "argsrepr", "eta", "expires", "group", "group_index", "id", "ignore_result", "kwargsrepr", "lang", "origin",
    "parent_id", "replaced_task_nesting", "retries", "root_id", "shadow", "stamped_headers", "stamps", "task",
    "timelimit",
}  # fmt: skip
"""Those of Celery's message protocol, version 2."""
