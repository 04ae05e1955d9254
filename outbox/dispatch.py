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
from typing import Any, Self

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


def send_all(sendings: Sequence[Sending], *, app: Celery) -> None:
    """
    Send canvases, in their order but for those that have no simple shape, which come last.

    Raises:
        BrokerDown: if the broker did not take all of them; it may have taken some.
        Exception: what Celery raises about a canvas that cannot be sent; some may have been sent.
    """
    with _broker_failures(app), app.producer_or_acquire() as producer:
        transport = next((fast for kind, fast in FAST if isinstance(producer.channel, kind)), None)
        filled, slow, used = [], [], set()
        for sending in sendings:
            shape = _Shape.of(sending) if transport else None
            template = _template(shape, transport, app, producer.channel) if transport and shape else None
            if shape and template and template.is_usable:
                used.add(template)
                filled.append(template.fill(shape))
            else:
                slow.append(sending)
        for entity in {entity for template in used for entity in template.recorded.declare}:
            producer.maybe_declare(entity)
        if transport and filled:
            transport.put(producer, filled)
        for sending in slow:
            send(sending)


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


@dataclasses.dataclass(frozen=True)
class _Shape:
    """Which tasks, with which names of arguments and headers; and the values, which do not count."""

    tasks: tuple[tuple[str, tuple[str, ...]], ...]
    headers: tuple[tuple[str, bool], ...]
    """Names, and whether the value is a number."""
    values: tuple[str, ...] = dataclasses.field(compare=False)

    @classmethod
    def of(cls, sending: Sending) -> _Shape | None:
        """The shape of a task or a chain of tasks with texts as keyword arguments, and nothing else."""
        canvas = sending.canvas
        tasks: list[tuple[str, tuple[str, ...]]] = []
        values: list[Any] = []
        for signature in canvas["kwargs"]["tasks"] if type(canvas) is Chain else [canvas]:
            if not _is_simple(signature):
                return None
            kwargs = signature["kwargs"]
            tasks.append((signature["task"], tuple(kwargs)))
            values += kwargs.values()
        headers = [(name, type(value) is int) for name, value in sending.headers.items()]
        values += [str(value) if type(value) is int else value for value in sending.headers.values()]
        if not {str}.issuperset(map(type, values)) or not PLAIN.fullmatch(" ".join(values)):
            return None
        if sum(map(len, values[: len(tasks[0][1])])) > LONGEST_ARGUMENTS:
            return None
        return cls(tuple(tasks), tuple(headers), tuple(values))

    def with_slots(self, app: Celery) -> Sending:
        """A canvas of this shape with a slot for each value, and one for each task id after them."""
        numbers = itertools.count()
        kwargs = [{name: f"--slot-{next(numbers)}--" for name in names} for _, names in self.tasks]
        headers = {
            name: f"--{'number' if is_number else 'slot'}-{next(numbers)}--" for name, is_number in self.headers
        }
        signatures = [
            app.signature(task, kwargs=arguments, immutable=True, headers=dict(headers)).set(
                task_id=f"--slot-{next(numbers)}--"
            )
            for (task, _), arguments in zip(self.tasks, kwargs, strict=True)
        ]
        return Sending(Chain(*signatures, app=app) if len(signatures) > 1 else signatures[0], headers)


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
        self.first_free_slot = len(shape.values) + len(shape.tasks)

    def values(self, shape: _Shape) -> list[str]:
        """What belongs in the slots, with a new id for each task."""
        return [*shape.values, *new_ids(len(shape.tasks))]

    @abc.abstractmethod
    def fill(self, shape: _Shape) -> Any:
        """A message that `put` takes."""

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


_templates: dict[tuple[Celery, type[_Template], _Shape], _Template] = {}


def _template(shape: _Shape, transport: type[_Template], app: Celery, channel: Any) -> _Template:
    key = (app, transport, shape)
    if key not in _templates:
        _templates[key] = transport(shape, app, channel)
    return _templates[key]


# Transports ----------------------------------------------------------------------------------------


class _ToRedis(_Template):
    """Messages as kombu's Redis channel puts them, all in one pipeline."""

    def __init__(self, shape: _Shape, app: Celery, channel: Any) -> None:
        super().__init__(shape, app, channel)
        exchange, routing_key = self.recorded.exchange, self.recorded.routing_key
        envelope = channel.prepare_message(self.recorded.body, **self.recorded.rest)
        channel._inplace_augment_message(envelope, exchange, routing_key)
        envelope["body"] = f"--slot-{self.first_free_slot}--"
        envelope["properties"]["delivery_tag"] = f"--slot-{self.first_free_slot + 1}--"
        self._envelope = _Text(kombu_json.dumps(envelope))
        queues = channel._lookup(exchange, routing_key) if exchange else [routing_key]
        priority = channel._get_message_priority(envelope, reverse=False)
        self._keys = [channel._q_for_pri(queue, priority) for queue in queues]

    def fill(self, shape: _Shape) -> tuple[list[str], str]:
        values = self.values(shape)
        body = base64.b64encode(self.body.fill(values).encode()).decode()
        return self._keys, self._envelope.fill([*values, body, *new_ids(1)])

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

    def fill(self, shape: _Shape) -> tuple[tuple[str, str], bytes, bytes]:
        values = self.values(shape)
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
