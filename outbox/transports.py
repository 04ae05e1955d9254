"""How each broker takes many messages at a time that are made from templates."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery
from kombu.transport import pyamqp
from kombu.transport import redis as redis_transport
from kombu.utils import json as kombu_json

from outbox import frames
from outbox.templates import NUMBER_SLOT, SLOT, Sending, Shape, Template, Text, new_ids

CONFIRMED_WITHIN = 3.0
"""Seconds of silence after which a broker that owes confirms counts as gone."""

WRITTEN_AT_ONCE = 50
"""Messages handed to the socket of RabbitMQ together: it works on them while the next ones are made."""


class BrokerDown(Exception):
    """The broker did not take a message; whatever the message was, it is not to blame."""


class ToRedis(Template):
    """Messages as kombu's Redis channel puts them, all in one pipeline."""

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
    def put(link: Any, messages: Sequence[tuple[list[str], str]]) -> None:
        by_key: dict[str, list[str]] = {}
        for keys, envelope in messages:
            for key in keys:
                by_key.setdefault(key, []).append(envelope)
        with link.default_channel.conn_or_acquire() as client:
            if len(by_key) == 1:  # nearly always, and one command is one by itself
                [(key, envelopes)] = by_key.items()
                client.lpush(key, *envelopes)
                return
            with client.pipeline() as pipeline:
                for key, envelopes in by_key.items():
                    pipeline.lpush(key, *envelopes)
                pipeline.execute()


class ToRabbitMQ(Template):
    """Messages as py-amqp publishes them, with one wait until the broker has confirmed all of them."""

    def __init__(self, shape: Shape, app: Celery, channel: Any, *, send: Callable[[Sending], None]) -> None:
        super().__init__(shape, app, channel, send=send)
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
    def put(link: Any, messages: Sequence[tuple[tuple[str, str], bytes, bytes]]) -> None:
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

        with link.channel() as channel:
            channel.confirm_select()
            channel.events["basic_ack"].add(confirm)
            channel.events["basic_nack"].add(refuse)
            _write(channel, messages)
            while unconfirmed:
                link.drain_events(timeout=CONFIRMED_WITHIN)


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
    return Text(text).fill if SLOT.search(text) else None


FAST: tuple[tuple[type, type[Template]], ...] = (
    (redis_transport.Channel, ToRedis),
    (pyamqp.Channel, ToRabbitMQ),
)
"""The channels that take many messages at a time."""
