"""
Sends canvases to the broker, many at a time. No other file of the project publishes work to Celery.

`send` sends one canvas as Celery does, and defines what the rest must do. `send_all` sends the same messages in
a fraction of the time. Celery builds the message of each shape of canvas once, with slots in place of values.
After that only the values are filled in, and a batch is one pipeline to Redis, or one wait for all of
RabbitMQ's confirms. A canvas without a simple shape is sent by `send`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import amqp
from celery import Celery, Signature
from celery.exceptions import CeleryError, QueueNotFound
from kombu.common import maybe_declare
from kombu.exceptions import OperationalError as BrokerError

from outbox.broker import amqp_transport, redis_kinds
from outbox.broker.message_templates import Sending, Shape, Template, read, signatures_in
from outbox.broker.transports import BrokerDown, fast
from outbox.command_lines import counted

__all__ = ["Batch", "BrokerDown", "NotDelivered", "Sending", "send", "send_all", "signatures_in"]

Headers: TypeAlias = Mapping[str, str | int]
"""The headers of a sending, which name its message and its workflow."""


class NotDelivered(Exception):
    """The broker is available, but no queue accepts these messages, and none could be declared."""

    def __init__(self, missed: Sequence[Headers]) -> None:
        super().__init__(f"no queue accepts {counted(len(missed), 'message')}")
        self.missed = missed


def send(sending: Sending) -> None:
    """Send one canvas as Celery does."""
    for signature in signatures_in(sending.canvas):
        signature.set(headers=dict(sending.headers))  # type: ignore[arg-type]
    sending.canvas.apply_async(retry=False)


def send_again(signature: Signature) -> None:
    """Send a message again that a worker has taken but cannot process now. Nothing new is published."""
    signature.apply_async()


def send_all(sendings: Iterable[Sending], *, app: Celery) -> None:
    """
    Send canvases: those with a known shape in their order, then those with a new shape, then all others.

    Raises:
        NotDelivered: if there is no queue for one of them; the others are sent.
        BrokerDown: if the broker has not accepted all of them; it may have accepted some.
        Exception: if Celery cannot send one of them; some may have been sent.
    """
    batch = Batch(app)
    for sending in sendings:
        batch.add(sending)
    if missed := batch.send():
        raise NotDelivered(missed)


_templates: dict[tuple[Celery, Shape], Template] = {}


class Batch:
    """
    Canvases for the broker. Where the shape is known, the message is built at once.

    A batch of canvases is tens of thousands of objects for Python's garbage collector; a batch of messages is
    some hundreds.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._filled: list[Any] = []
        self._headers: list[Headers] = []
        self._used: set[Template] = set()
        self._others: list[Sending] = []

    def add(self, sending: Sending) -> None:
        """Add one canvas. This does not use the broker."""
        shaped = read(sending)
        template = _templates.get((self._app, shaped[0])) if shaped else None
        if shaped and template and template.is_usable:
            self._fill(template, shaped[1], sending.headers)
        else:
            self._others.append(sending)

    def _fill(self, template: Template, values: list[str], headers: Headers) -> None:
        self._used.add(template)
        self._filled.append(template.fill(values))
        self._headers.append(headers)

    def send(self) -> list[Headers]:
        """Send all canvases as `send_all` does, but return the headers of those that no queue accepts."""
        # The pool that Celery's producers use, too. Getting a producer takes as long as sending the batch.
        connections: Any = self._app.pool
        with _broker_failures(self._app), connections.acquire(block=True) as connection:
            channel = connection.default_channel
            transport = fast(channel)
            slow = [sending for sending in self._others if not self._fill_late(sending, transport, channel)]
            self._declare(connection, channel)
            return [*self._put(connection), *(sending.headers for sending in slow if not _sent(sending))]

    def _declare(self, connection: Any, channel: Any) -> None:
        for entity in {entity for template in self._used for entity in template.recorded.declare}:
            # `maybe_declare` checks this as well, but copies the entity first.
            if hash(entity) not in connection.declared_entities:
                with contextlib.suppress(amqp.ChannelError):  # its messages will be returned
                    maybe_declare(entity, channel)

    def _put(self, connection: Any) -> list[Headers]:
        if not self._used:
            return []
        missed = {id(filled) for filled in next(iter(self._used)).put(connection, self._filled, app=self._app)}
        if not missed:
            return []
        pairs = zip(self._filled, self._headers, strict=True)
        return [headers for filled, headers in pairs if id(filled) in missed]

    def _fill_late(self, sending: Sending, transport: type[Template] | None, channel: Any) -> bool:
        """Build the template of a new shape, now that there is a channel; return whether that was possible."""
        shaped = read(sending) if transport else None
        if not shaped or not transport:
            return False
        shape, values = shaped
        if (self._app, shape) not in _templates:
            try:
                _templates[self._app, shape] = transport(shape, self._app, channel, send=send)
            except QueueNotFound:  # `send` will say so of this message alone
                return False
        template = _templates[self._app, shape]
        if template.is_usable:
            self._fill(template, values, sending.headers)
        return template.is_usable


def _sent(sending: Sending) -> bool:
    """Send as Celery does; return False if no queue accepts the message, or none of its name is configured."""
    try:
        send(sending)
    except (QueueNotFound, amqp_transport.NotDelivered, amqp.ChannelError, redis_kinds.WrongKind):
        return False
    return True


@contextlib.contextmanager
def _broker_failures(app: Celery) -> Iterator[None]:
    try:
        yield
    except (BrokerDown, CeleryError):  # some of Celery's are KeyErrors, as are some outages of Redis
        raise
    except _broker_errors(app) as error:
        raise BrokerDown(repr(error)) from error


@functools.cache
def _broker_errors(app: Celery) -> tuple[type[BaseException], ...]:
    with app.connection_for_write() as connection:
        return (BrokerError, *connection.connection_errors, *connection.channel_errors, OSError)
