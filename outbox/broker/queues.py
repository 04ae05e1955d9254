"""
The queues of RabbitMQ: declaring them, and declaring them again when somebody has deleted or unbound them.

Nothing here needs Django or a database: every process that publishes uses it (see `amqp_transport`). What is
done with messages that the broker gave up is in `dead_letter_queues`.
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
"""The version of RabbitMQ that gives quorum queues a delivery limit of 20 when they are declared without one,
and takes -1 for none. RabbitMQ 3.10.8 takes -1 as well, but deletes such a message when it first comes back."""

DELAYS = "celery_delayed_"
"""How the names of the exchanges and queues begin in which Celery's countdowns wait."""

PRECONDITION_FAILED, ACCESS_REFUSED = 406, 403
"""Reply codes of AMQP: it exists with other arguments; the account may not."""

logger = logging.getLogger(__name__)


def dead_queues(app: Celery, names: Iterable[str], *, unlimited: bool = False) -> list[Queue]:
    """
    The dead letter queues that the queues `names` name; none where the broker knows no such thing.

    Unlimited ones keep a message however often the connection is lost that holds it.
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


def limits_deliveries(link: Any) -> bool:
    """Whether the broker behind a connection is a RabbitMQ that limits deliveries unless told otherwise."""
    properties = getattr(link.connection, "server_properties", None) or {}
    version = str(properties.get("version") or "0")
    return properties.get("product") == "RabbitMQ" and version_string_as_tuple(version)[:2] >= UNLIMITED_SINCE


def declare(app: Celery, link: Any, names: Iterable[str]) -> None:
    """Declare the queues `names` with their exchanges and bindings, and their dead letter queues first."""
    declare_dead(app, link, names)
    with link.channel() as channel:
        for name in names:
            app.amqp.queues[name](channel).declare()


def declare_dead(app: Celery, link: Any, names: Iterable[str]) -> list[Queue]:
    """
    Declare the dead letter queues of the queues `names`; return those that exist with other arguments.

    A queue that was declared when the broker was older, or by an older release, has no limit of its own.
    It works as before; `renew` replaces it when it is empty.
    """
    outdated = []
    for queue in dead_queues(app, names, unlimited=limits_deliveries(link)):
        try:
            with link.channel() as channel:
                queue(channel).declare()
        except link.channel_errors as error:
            if getattr(error, "reply_code", None) != PRECONDITION_FAILED:
                raise
            outdated.append(queue)
    return outdated


def renew(link: Any, queue: Queue) -> bool:
    """
    Replace a dead letter queue that has other arguments, if it is empty; return whether that is settled.

    Both requests leave together, so that the queue is missing for no longer than the broker takes from one to
    the next. A message that is given up in between is lost by the broker like any other; the sweeps find it.
    """
    try:
        with link.channel() as channel:
            if channel.queue_declare(queue.name, passive=True).message_count:
                return False
            channel.queue_delete(queue.name, nowait=True)
            queue(channel).declare()
    except link.channel_errors as error:
        if getattr(error, "reply_code", None) != ACCESS_REFUSED:
            raise
        logger.warning(
            "%s keeps the delivery limit that RabbitMQ gives it, because this account may not replace it: %s. "
            "Delete it while it is empty, or set the policy that docs/operations.md names.",
            queue.name,
            error,
        )
    else:
        logger.info("%s is declared anew, without a delivery limit", queue.name)
    return True


def declare_delays(app: Celery, link: Any, names: Iterable[str]) -> None:
    """
    Declare what Celery's countdowns wait in, and bind the queues `names` to it.

    Celery's own step binds queues that nobody has declared yet, as on a new broker, and asks each host of the
    URL in turn, one that is down as well.
    """
    if not detect_quorum_queues(app, link.transport.driver_type)[0]:
        return
    kind = app.conf.broker_native_delayed_delivery_queue_type
    with _Channels(link) as channels:
        declare_native_delayed_delivery_exchanges_and_queues(channels, kind)
        for queue in map(app.amqp.queues.__getitem__, names):
            if queue.exchange.type != "direct":
                bind_queue_to_native_delayed_delivery_exchange(channels, queue)


def declare_again(app: Celery, *, exchange: str, routing_key: str) -> None:
    """
    Declare what takes the messages that are sent there, over a connection of its own.

    Raises:
        kombu.exceptions.OperationalError: if the broker does not answer.
        amqp.ChannelError: if it refuses.
    """
    names = [queue.name for queue in _takers(app, exchange, routing_key)]
    with app.connection_for_write() as link:
        link.ensure_connection(max_retries=1, interval_start=0)
        declare(app, link, names)
        declare_delays(app, link, names)


def _takers(app: Celery, exchange: str, routing_key: str) -> Iterator[Queue]:
    """The queues behind an address. A message that is to wait names its queue's key at the end of its own."""
    for queue in app.amqp.queues.values():
        if exchange.startswith(DELAYS):
            takes = routing_key.endswith(f".{queue.routing_key}")
        else:
            takes = queue.exchange.name == exchange if exchange else queue.name == routing_key
        if takes:
            yield queue


class _Channels:
    """A connection whose channels are closed with it: kombu opens one for each queue that it binds."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self._opened: list[Any] = []

    def __enter__(self) -> Any:
        return self

    def channel(self) -> Any:
        self._opened.append(self._link.channel())
        return self._opened[-1]

    def __exit__(self, *_: object) -> None:
        for channel in self._opened:
            self._link.maybe_close_channel(channel)
