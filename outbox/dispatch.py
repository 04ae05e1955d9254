"""
Sending canvases to the broker, many at a time. The only file in the project that publishes work to Celery.

`send` is what Celery does, one canvas after the other, and the specification of everything here.
`send_all` sends the same messages in a fraction of the time: Celery builds the message of each shape of
canvas once, from slots instead of ids; after that only the ids are filled in, and a batch is one pipeline
to Redis, or one wait for all of RabbitMQ's confirms. What has no simple shape goes by way of `send`.
"""

from __future__ import annotations

import abc
import base64
import contextlib
import dataclasses
import functools
import inspect
import itertools
import json
import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import kombu
from celery import Celery
from celery.canvas import Signature
from celery.canvas import _chain as Chain
from celery.canvas import group as Group
from kombu.exceptions import OperationalError as BrokerError
from kombu.transport import pyamqp
from kombu.transport import redis as redis_transport
from kombu.utils import json as kombu_json

from outbox import frames

SLOT, NUMBER_SLOT = re.compile(r"--slot-(\d+)--"), re.compile(r'"--number-(\d+)--"')
PLAIN = re.compile(r"[\w.:@+=,/ -]*", re.ASCII)
"""Values that look the same in JSON and in the representation of Python that Celery puts into a header."""

LONGEST_ARGUMENTS = 500
"""Characters of a task's arguments; Celery shortens the representation of those much longer, in a header."""

CONFIRMED_WITHIN = 3.0
"""Seconds of silence after which a broker that owes confirms counts as gone."""


WRITTEN_AT_ONCE = 50
"""Messages handed to the socket of RabbitMQ together: it works on them while the next ones are made."""


class BrokerDown(Exception):
    """The broker did not take a message; whatever the message was, it is not to blame."""


@dataclasses.dataclass(frozen=True)
class Sending:
    """A canvas, and the headers that every signature in it carries."""

    canvas: Signature
    headers: Mapping[str, str | int]


def send(sending: Sending) -> None:
    """Send one canvas as Celery does."""
    for signature in signatures_in(sending.canvas):
        signature.set(headers=dict(sending.headers))  # type: ignore[arg-type]
    sending.canvas.apply_async(retry=False)


def send_all(sendings: Iterable[Sending], *, app: Celery) -> None:
    """
    Send canvases, in their order but for those of a shape that is new, and after them those of none.

    Raises:
        BrokerDown: if the broker did not take all of them; it may have taken some.
        Exception: what Celery raises about a canvas that cannot be sent; some may have been sent.
    """
    batch = Batch(app)
    for sending in sendings:
        batch.add(sending)
    batch.send()


class Batch:
    """
    Canvases for the broker, of which the messages are made at once where their shape is known.

    A batch of canvases is tens of thousands of objects for Python's collector to look through; of messages,
    some hundreds.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._filled: list[Any] = []
        self._used: set[_Template] = set()
        self._others: list[Sending] = []

    def add(self, sending: Sending) -> None:
        """Take one more. The broker is not asked."""
        read = _read(sending)
        template = _templates.get((self._app, read[0])) if read else None
        if read and template and template.is_usable:
            self._fill(template, read[1])
        else:
            self._others.append(sending)

    def _fill(self, template: _Template, values: list[str]) -> None:
        self._used.add(template)
        self._filled.append(template.fill(values))

    def send(self) -> None:
        """Send all of them, as `send_all` says."""
        with _broker_failures(self._app), self._app.producer_or_acquire() as producer:
            transport = next((fast for kind, fast in FAST if isinstance(producer.channel, kind)), None)
            slow = [sending for sending in self._others if not self._fill_late(sending, transport, producer)]
            for entity in {entity for template in self._used for entity in template.recorded.declare}:
                producer.maybe_declare(entity)
            if self._used:
                next(iter(self._used)).put(producer, self._filled)
            for sending in slow:
                send(sending)

    def _fill_late(self, sending: Sending, transport: type[_Template] | None, producer: Any) -> bool:
        """Fill a sending if its shape can be learned, now that there is a channel; return whether it was."""
        read = _read(sending) if transport else None
        if not read or not transport:
            return False
        shape, values = read
        if (self._app, shape) not in _templates:
            _templates[self._app, shape] = transport(shape, self._app, producer.channel)
        template = _templates[self._app, shape]
        if template.is_usable:
            self._fill(template, values)
        return template.is_usable


def signatures_in(canvas: Signature) -> Iterable[Signature]:
    """The tasks of a canvas: a chain's headers would reach its first task only."""
    if isinstance(canvas, Chain | Group):
        for part in canvas.tasks:
            yield from signatures_in(part)
    else:
        yield canvas


@contextlib.contextmanager
def _broker_failures(app: Celery) -> Iterator[None]:
    try:
        yield
    except BrokerDown:
        raise
    except _broker_errors(app) as error:
        raise BrokerDown(repr(error)) from error


@functools.cache
def _broker_errors(app: Celery) -> tuple[type[BaseException], ...]:
    with app.connection_for_write() as link:
        return (BrokerError, *link.connection_errors, *link.channel_errors, OSError)


# Shapes and templates ------------------------------------------------------------------------------


class _Shape(NamedTuple):
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


def _read(sending: Sending) -> tuple[_Shape, list[str]] | None:
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
    return _Shape(tuple(tasks), tuple(headers), kinds), values


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


class _Text:
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
class _Recorded:
    """What Celery hands to the transport."""

    body: str
    rest: dict[str, Any]
    exchange: str
    routing_key: str
    declare: Sequence[Any]


PUBLISH = inspect.signature(kombu.Producer._publish)
PREPARED = ("priority", "content_type", "content_encoding", "headers", "properties")
"""What a transport prepares a message of, besides its body."""


class _Recorder(kombu.Producer):
    """Notes what Celery publishes instead of sending it."""

    recorded: _Recorded

    def __deepcopy__(self, memo: object) -> Self:
        return self  # a chain copies its tasks with all their options

    def _publish(self, *positional: Any, **named: Any) -> None:
        given = PUBLISH.bind(self, *positional, **named).arguments
        rest = {name: given[name] for name in PREPARED}
        self.recorded = _Recorded(
            given["body"], rest, given["exchange"], given["routing_key"], tuple(given["declare"] or ())
        )


class _Template(abc.ABC):
    """What Celery sends for one shape, with slots where the values and the task ids belong."""

    def __init__(self, shape: _Shape, app: Celery, channel: Any) -> None:
        sending, recorder = shape.with_slots(app), _Recorder(channel, auto_declare=False)
        # As an option of the first task: Celery's chain drops the producer it is given.
        next(iter(signatures_in(sending.canvas))).set(producer=recorder)
        send(sending)
        self.recorded = recorder.recorded
        self.is_usable = _adds_nothing(self.recorded.rest["headers"], sending.headers)
        self.body = _Text(self.recorded.body)
        self.tasks = len(shape.tasks)
        self.first_free_slot = shape.slots + self.tasks

    @abc.abstractmethod
    def fill(self, values: list[str]) -> Any:
        """A message that `put` takes, with a new id for each task."""

    @staticmethod
    @abc.abstractmethod
    def put(producer: Any, messages: Sequence[Any]) -> None:
        """Send all of them."""


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


_templates: dict[tuple[Celery, _Shape], _Template] = {}


# Transports ----------------------------------------------------------------------------------------


class _ToRedis(_Template):
    """Messages as kombu's Redis channel puts them, all in one pipeline."""

    def __init__(self, shape: _Shape, app: Celery, channel: Any) -> None:
        super().__init__(shape, app, channel)
        exchange, routing_key = self.recorded.exchange, self.recorded.routing_key
        envelope = channel.prepare_message(self.recorded.body, **self.recorded.rest)
        channel._inplace_augment_message(envelope, exchange, routing_key)
        envelope["properties"]["delivery_tag"] = f"--slot-{self.first_free_slot}--"
        envelope["body"] = f"--slot-{self.first_free_slot + 1}--"
        self._envelope = _Text(kombu_json.dumps(envelope))
        queues = channel._lookup(exchange, routing_key) if exchange else [routing_key]
        priority = channel._get_message_priority(envelope, reverse=False)
        self._keys = [channel._q_for_pri(queue, priority) for queue in queues]

    def fill(self, values: list[str]) -> tuple[list[str], str]:
        values = values + new_ids(self.tasks + 1)
        values.append(base64.b64encode(self.body.fill(values).encode()).decode())
        return self._keys, self._envelope.fill(values)

    @staticmethod
    def put(producer: Any, messages: Sequence[tuple[list[str], str]]) -> None:
        with (
            producer.channel.conn_or_acquire() as client,
            client.pipeline(transaction=True) as pipeline,
        ):
            by_key: dict[str, list[str]] = {}
            for keys, envelope in messages:
                for key in keys:
                    by_key.setdefault(key, []).append(envelope)
            for key, envelopes in by_key.items():
                pipeline.lpush(key, *envelopes)
            pipeline.execute()


class _ToRabbitMQ(_Template):
    """Messages as py-amqp publishes them, with one wait until the broker has confirmed all of them."""

    def __init__(self, shape: _Shape, app: Celery, channel: Any) -> None:
        super().__init__(shape, app, channel)
        message = channel.prepare_message("", **self.recorded.rest)
        texts = [*message.properties.values(), *message.properties["application_headers"].values()]
        self._properties = frames.Properties(
            message, {text: fill for text in texts if (fill := _filling(text))}
        )
        self._address = (self.recorded.exchange, self.recorded.routing_key)

    def fill(self, values: list[str]) -> tuple[tuple[str, str], bytes, bytes]:
        values = values + new_ids(self.tasks)
        return self._address, self._properties.fill(values), self.body.fill(values).encode()

    @staticmethod
    def put(producer: Any, messages: Sequence[tuple[tuple[str, str], bytes, bytes]]) -> None:
        unconfirmed, lowest = set(range(1, len(messages) + 1)), 1

        def confirm(delivery_tag: int, multiple: bool) -> None:
            nonlocal lowest
            if multiple:
                unconfirmed.difference_update(range(lowest, delivery_tag + 1))
                lowest = delivery_tag + 1
            else:
                unconfirmed.discard(delivery_tag)

        def refuse(delivery_tag: int, multiple: bool) -> None:
            raise BrokerDown(f"the broker refused message {delivery_tag} of a batch")

        with producer.connection.channel() as channel:
            channel.confirm_select()
            channel.events["basic_ack"].add(confirm)
            channel.events["basic_nack"].add(refuse)
            _write(channel, messages)
            while unconfirmed:
                producer.connection.drain_events(timeout=CONFIRMED_WITHIN)


def _write(channel: Any, messages: Sequence[tuple[tuple[str, str], bytes, bytes]]) -> None:
    announcements = {
        address: frames.publishing(channel, exchange=address[0], routing_key=address[1])
        for address in {address for address, *_ in messages}
    }
    for some in range(0, len(messages), WRITTEN_AT_ONCE):
        written: list[bytes] = []
        for address, properties, body in messages[some : some + WRITTEN_AT_ONCE]:
            written += (announcements[address], *frames.content(channel, properties, body))
        channel.connection.transport.write(b"".join(written))


def _filling(text: Any) -> frames.Fill | None:
    """What fills a text that has slots."""
    if not isinstance(text, str):
        return None
    if number := NUMBER_SLOT.fullmatch(json.dumps(text)):
        position = int(number[1])
        return lambda values: int(values[position])
    return _Text(text).fill if SLOT.search(text) else None


FAST: tuple[tuple[type, type[_Template]], ...] = (
    (redis_transport.Channel, _ToRedis),
    (pyamqp.Channel, _ToRabbitMQ),
)
"""The channels that take many messages at a time."""
