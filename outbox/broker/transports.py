"""Sending many messages made from templates at once, for each broker."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import amqp
from celery import Celery
from kombu.transport import pyamqp
from kombu.utils import json as kombu_json

from outbox.broker import amqp_frames, amqp_transport, redis_kinds
from outbox.broker.message_templates import NUMBER_SLOT, SLOT, Sending, Shape, Template, Text, new_ids

CONFIRMED_WITHIN = 3.0
"""Seconds without a frame after which a broker with missing confirms counts as down."""

WRITTEN_AT_ONCE = 50
"""Messages written to RabbitMQ's socket together; it processes them while the next ones are built."""


class BrokerDown(Exception):
    """The broker did not accept a message, for a reason that does not depend on the message."""


class ToRedis(Template):
    """Messages in the format of kombu's Redis channel, sent in one pipeline."""

    def __init__(self, shape: Shape, app: Celery, channel: Any, *, send: Callable[[Sending], None]) -> None:
        super().__init__(shape, app, channel, send=send)
        exchange, routing_key = self.recorded.exchange, self.recorded.routing_key
        envelope = channel.prepare_message(self.recorded.body, **self.recorded.rest)
        channel._inplace_augment_message(envelope, exchange, routing_key)
        envelope["properties"]["delivery_tag"] = f"--slot-{self.first_free_slot}--"
        envelope["body"] = f"--slot-{self.first_free_slot + 1}--"
        self._envelope = Text(kombu_json.dumps(envelope))
        queues = channel._lookup(exchange, routing_key) if exchange else [routing_key]
        priority = channel._get_message_priority(envelope, reverse=False)
        self._keys = [channel._q_for_pri(queue, priority) for queue in queues]

    def fill(self, values: list[str]) -> tuple[list[str], str]:
        values = values + new_ids(self.tasks + 1)
        values.append(base64.b64encode(self.body.fill(values).encode()).decode())
        return self._keys, self._envelope.fill(values)

    @staticmethod
    def put(connection: Any, messages: Sequence[tuple[list[str], str]], *, app: Celery) -> list[Any]:
        by_key: dict[str, list[str]] = {}
        for keys, envelope in messages:
            for key in keys:
                by_key.setdefault(key, []).append(envelope)
        with connection.default_channel.conn_or_acquire() as client:
            if len(by_key) == 1:  # nearly always; a single command needs no pipeline
                [(key, envelopes)] = by_key.items()
                try:
                    client.lpush(key, *envelopes)
                except redis_kinds.ResponseError as error:
                    return ToRedis._refused(client, messages, {key: error})
                return []
            with client.pipeline() as pipeline:
                for key, envelopes in by_key.items():
                    pipeline.lpush(key, *envelopes)
                answers = pipeline.execute(raise_on_error=False)
            found = zip(by_key, answers, strict=True)
            failed = {key: answer for key, answer in found if isinstance(answer, Exception)}
            return ToRedis._refused(client, messages, failed) if failed else []

    @staticmethod
    def _refused(
        client: Any, messages: Sequence[tuple[list[str], str]], failed: Mapping[str, Exception]
    ) -> list[Any]:
        """The messages whose queue has a key of the wrong type; raise any other error."""
        for error in failed.values():
            if not redis_kinds.is_refusal(error):
                raise error
        redis_kinds.report(client, dict.fromkeys(failed, redis_kinds.LIST))
        return [message for message in messages if not failed.keys().isdisjoint(message[0])]


class ToRabbitMQ(Template):
    """Messages in the format of py-amqp, with one wait for all of the broker's confirms."""

    def __init__(self, shape: Shape, app: Celery, channel: Any, *, send: Callable[[Sending], None]) -> None:
        super().__init__(shape, app, channel, send=send)
        message = channel.prepare_message("", **self.recorded.rest)
        texts = [*message.properties.values(), *message.properties["application_headers"].values()]
        self._properties = amqp_frames.Properties(
            message, {text: fill for text in texts if (fill := _filling(text))}
        )
        self._address = (self.recorded.exchange, self.recorded.routing_key)

    def fill(self, values: list[str]) -> Filled:
        ids = new_ids(self.tasks)
        values = values + ids
        return Filled(self._address, ids[0], self._properties.fill(values), self.body.fill(values).encode())

    @staticmethod
    def put(connection: Any, messages: Sequence[Filled], *, app: Celery) -> list[Any]:
        missed = _put(connection, messages)
        found: list[Filled] = []
        # One address at a time: a missing exchange fails all messages of a channel.
        for address in dict.fromkeys(message.address for message in missed):
            amqp_transport.declare_again(app, exchange=address[0], routing_key=address[1])
            found += _put(connection, [message for message in missed if message.address == address])
        return found


class Filled(NamedTuple):
    """A message for RabbitMQ: its address, the id of its task, and its encoded parts."""

    address: tuple[str, str]
    task_id: str
    properties: bytes
    body: bytes


def _put(connection: Any, messages: Sequence[Filled]) -> list[Filled]:
    """Write messages and wait until all are confirmed; return those that no queue accepted."""
    unconfirmed, lowest = set(range(1, len(messages) + 1)), 1
    returned: set[str] = set()

    def confirm(delivery_tag: int, multiple: bool) -> None:
        nonlocal lowest
        if multiple:
            unconfirmed.difference_update(range(lowest, delivery_tag + 1))
            lowest = delivery_tag + 1
        else:
            unconfirmed.discard(delivery_tag)

    def refuse(delivery_tag: int, multiple: bool) -> None:
        raise BrokerDown(f"the broker refused message {delivery_tag} of a batch")

    def take_back(error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        returned.add(message.properties["application_headers"]["id"])

    with connection.channel() as channel:
        channel.confirm_select()
        channel.events["basic_ack"].add(confirm)
        channel.events["basic_nack"].add(refuse)
        channel.events["basic_return"].add(take_back)
        with contextlib.suppress(amqp.NotFound):  # an exchange is missing; the messages after it were ignored
            _write(channel, messages)
            while unconfirmed:
                connection.drain_events(timeout=CONFIRMED_WITHIN)
    return [
        message
        for tag, message in enumerate(messages, start=1)
        if tag in unconfirmed or message.task_id in returned
    ]


def _write(channel: Any, messages: Sequence[Filled]) -> None:
    announcements = {
        address: amqp_frames.publishing(channel, exchange=address[0], routing_key=address[1])
        for address in {message.address for message in messages}
    }
    for some in range(0, len(messages), WRITTEN_AT_ONCE):
        written: list[bytes] = []
        for address, _, properties, body in messages[some : some + WRITTEN_AT_ONCE]:
            written += (announcements[address], *amqp_frames.content(channel, properties, body))
        channel.connection.transport.write(b"".join(written))


def _filling(text: Any) -> amqp_frames.Fill | None:
    """The function that fills a text with slots."""
    if not isinstance(text, str):
        return None
    if number := NUMBER_SLOT.fullmatch(json.dumps(text)):
        position = int(number[1])
        return lambda values: int(values[position])
    return Text(text).fill if SLOT.search(text) else None


def fast(channel: Any) -> type[Template] | None:
    """How this channel sends many messages at once; None if it sends them one by one."""
    if isinstance(channel, pyamqp.Channel):
        return ToRabbitMQ
    # Not by its class: kombu's module cannot be imported where no client of Redis is installed.
    return ToRedis if getattr(channel.connection, "driver_type", "") == "redis" else None
