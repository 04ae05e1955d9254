"""
Sending canvases to the broker, many at a time. The only file in the project that publishes work to Celery.

`send` is what Celery does, one canvas after the other, and the specification of everything here.
`send_all` sends the same messages in a fraction of the time: Celery builds the message of each shape of
canvas once, from slots instead of ids; after that only the ids are filled in, and a batch is one pipeline
to Redis, or one wait for all of RabbitMQ's confirms. What has no simple shape goes by way of `send`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

from celery import Celery
from kombu.common import maybe_declare
from kombu.exceptions import OperationalError as BrokerError

from outbox.templates import Sending, Shape, Template, read, signatures_in
from outbox.transports import FAST, BrokerDown

__all__ = ["Batch", "BrokerDown", "Sending", "send", "send_all", "signatures_in"]


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


_templates: dict[tuple[Celery, Shape], Template] = {}


class Batch:
    """
    Canvases for the broker, of which the messages are made at once where their shape is known.

    A batch of canvases is tens of thousands of objects for Python's collector to look through; of messages,
    some hundreds.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._filled: list[Any] = []
        self._used: set[Template] = set()
        self._others: list[Sending] = []

    def add(self, sending: Sending) -> None:
        """Take one more. The broker is not asked."""
        shaped = read(sending)
        template = _templates.get((self._app, shaped[0])) if shaped else None
        if shaped and template and template.is_usable:
            self._fill(template, shaped[1])
        else:
            self._others.append(sending)

    def _fill(self, template: Template, values: list[str]) -> None:
        self._used.add(template)
        self._filled.append(template.fill(values))

    def send(self) -> None:
        """Send all of them, as `send_all` says."""
        # The connections that Celery's producers have, too; to get a producer takes as long as the sending.
        links: Any = self._app.pool
        with _broker_failures(self._app), links.acquire(block=True) as link:
            channel = link.default_channel
            transport = next((fast for kind, fast in FAST if isinstance(channel, kind)), None)
            slow = [sending for sending in self._others if not self._fill_late(sending, transport, channel)]
            for entity in {entity for template in self._used for entity in template.recorded.declare}:
                # kombu knows as well, but copies the entity before it looks.
                if hash(entity) not in link.declared_entities:
                    maybe_declare(entity, channel)
            if self._used:
                next(iter(self._used)).put(link, self._filled)
            for sending in slow:
                send(sending)

    def _fill_late(self, sending: Sending, transport: type[Template] | None, channel: Any) -> bool:
        """Fill a sending if its shape can be learned, now that there is a channel; return whether it was."""
        shaped = read(sending) if transport else None
        if not shaped or not transport:
            return False
        shape, values = shaped
        if (self._app, shape) not in _templates:
            _templates[self._app, shape] = transport(shape, self._app, channel, send=send)
        template = _templates[self._app, shape]
        if template.is_usable:
            self._fill(template, values)
        return template.is_usable


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
