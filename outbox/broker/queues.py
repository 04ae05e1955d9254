"""
Declares the queues of RabbitMQ, also again after somebody has deleted or unbound them.

Nothing here needs Django or a database, because every process that publishes uses it (see `amqp_transport`).
`dead_letter_queues` handles messages that the broker gave up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from celery import Celery
from celery.utils.quorum_queues import detect_quorum_queues
from kombu import Exchange, Queue
from kombu.transport.native_delayed_delivery import (
    bind_queue_to_native_delayed_delivery_exchange,
    declare_native_delayed_delivery_exchanges_and_queues,
)
from kombu.utils.text import version_string_as_tuple

UNLIMITED_SINCE = (4, 0)
"""The version from which RabbitMQ gives quorum queues a default delivery limit of 20 and accepts -1 for none.
RabbitMQ 3.10.8 accepts -1 as well, but deletes a message of such a queue at its first redelivery."""

DELAYS = "celery_delayed_"
"""The prefix of the exchanges and queues that hold Celery's countdowns."""

PRECONDITION_FAILED, ACCESS_REFUSED = 406, 403
"""Reply codes of AMQP: the queue exists with other arguments; the account lacks the permission."""

logger = logging.getLogger(__name__)


def dead_queues(app: Celery, names: Iterable[str], *, unlimited: bool = False) -> list[Queue]:
    """
    Return the dead letter queues of the queues `names`; none on brokers without dead letter queues.

    With `unlimited`, they have no delivery limit: they keep a message however often its connection is lost.
    """
    found = []
    for name in names:
        arguments = app.amqp.queues[name].queue_arguments or {}
        if target := arguments.get("x-dead-letter-routing-key"):
            kept = {"x-queue-type": arguments.get("x-queue-type", "classic")}
            if unlimited and kept["x-queue-type"] == "quorum":
                kept["x-delivery-limit"] = -1
            found.append(Queue(target, Exchange(""), routing_key=target, queue_arguments=kept))
    return found


def limits_deliveries(connection: Any) -> bool:
    """Return whether the broker is a RabbitMQ that limits deliveries by default."""
    properties = getattr(connection.connection, "server_properties", None) or {}
    version = str(properties.get("version") or "0")
    return properties.get("product") == "RabbitMQ" and version_string_as_tuple(version)[:2] >= UNLIMITED_SINCE


def declare(app: Celery, connection: Any, names: Iterable[str]) -> None:
    """Declare the queues `names` with exchanges and bindings, after their dead letter queues."""
    declare_dead(app, connection, names)
    with connection.channel() as channel:
        for name in names:
            app.amqp.queues[name](channel).declare()


def declare_dead(app: Celery, connection: Any, names: Iterable[str]) -> list[Queue]:
    """
    Declare the dead letter queues of the queues `names`; return those that exist with other arguments.

    A queue that was declared on an older broker, or by an older release, has the broker's default limit. It
    works as before; `renew` replaces it when it is empty.
    """
    outdated = []
    for queue in dead_queues(app, names, unlimited=limits_deliveries(connection)):
        try:
            with connection.channel() as channel:
                queue(channel).declare()
        except connection.channel_errors as error:
            if getattr(error, "reply_code", None) != PRECONDITION_FAILED:
                raise
            outdated.append(queue)
    return outdated


def renew(connection: Any, queue: Queue) -> bool:
    """
    Replace a dead letter queue that has other arguments, if it is empty; return False to try again later.

    Both requests are sent together, so the queue is missing only while the broker moves from one to the next.
    The broker loses a message that it gives up in between; the sweeps find it.
    """
    try:
        with connection.channel() as channel:
            if channel.queue_declare(queue.name, passive=True).message_count:
                return False
            channel.queue_delete(queue.name, nowait=True)
            queue(channel).declare()
    except connection.channel_errors as error:
        if getattr(error, "reply_code", None) != ACCESS_REFUSED:
            raise
        logger.warning(
            "%s keeps RabbitMQ's default delivery limit, because this account may not replace the queue: %s. "
            "Delete it while it is empty, or set the policy described in docs/operations.md.",
            queue.name,
            error,
        )
    else:
        logger.info("%s was declared again, without a delivery limit", queue.name)
    return True


def declare_delays(app: Celery, connection: Any, names: Iterable[str]) -> None:
    """
    Declare the exchanges and queues that hold Celery's countdowns, and bind the queues `names` to them.

    Celery's own step also binds queues that are not declared yet, as on a new broker, and it tries each host of
    the URL in turn, even one that is down.
    """
    if not detect_quorum_queues(app, connection.transport.driver_type)[0]:
        return
    kind = app.conf.broker_native_delayed_delivery_queue_type
    with _Channels(connection) as channels:
        declare_native_delayed_delivery_exchanges_and_queues(channels, kind)
        for queue in map(app.amqp.queues.__getitem__, names):
            if queue.exchange.type != "direct":
                bind_queue_to_native_delayed_delivery_exchange(channels, queue)


def declare_again(app: Celery, *, exchange: str, routing_key: str) -> None:
    """
    Declare the queues that receive messages with this address, over a connection of its own.

    Raises:
        kombu.exceptions.OperationalError: if the broker does not answer.
        amqp.ChannelError: if it refuses.
    """
    names = [queue.name for queue in _takers(app, exchange, routing_key)]
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)
        declare(app, connection, names)
        declare_delays(app, connection, names)


def _takers(app: Celery, exchange: str, routing_key: str) -> Iterator[Queue]:
    """The queues of an address. The routing key of a delayed message ends with that of its queue."""
    for queue in app.amqp.queues.values():
        if exchange.startswith(DELAYS):
            takes = routing_key.endswith(f".{queue.routing_key}")
        else:
            takes = queue.exchange.name == exchange if exchange else queue.name == routing_key
        if takes:
            yield queue


class _Channels:
    """Opens channels on a connection and closes them at the end: kombu opens one for each queue it binds."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._opened: list[Any] = []

    def __enter__(self) -> Any:
        return self

    def channel(self) -> Any:
        self._opened.append(self._connection.channel())
        return self._opened[-1]

    def __exit__(self, *_: object) -> None:
        for channel in self._opened:
            self._connection.maybe_close_channel(channel)
