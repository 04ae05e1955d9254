"""Read-only queries to the broker, and what the application says of its queues."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterable
from typing import Any

from celery import Celery, current_app
from celery.exceptions import QueueNotFound
from kombu.exceptions import ChannelError, OperationalError

from outbox.broker import rabbitmq_api, redis_kinds, redis_unacknowledged

logger = logging.getLogger(__name__)


def waiting(queue: str) -> int:
    """
    Return how many messages wait in `queue`; 0 if the broker does not know the queue yet.

    Raises:
        kombu.exceptions.OperationalError: if the broker does not answer.
    """
    with current_app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)
        channel: Any = connection.channel()
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except _missing(connection):
            return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueueLength:
    """The messages of one queue. What this broker cannot be asked for is None."""

    ready: int
    unacknowledged: int | None = None
    consumers: int | None = None


def lengths(app: Celery | None = None, *, management: str = "") -> dict[str, QueueLength]:
    """
    Return the lengths of all queues of an application, by default this one, by name, over one connection.

    Redis knows which messages are not acknowledged, and nothing of consumers. RabbitMQ counts consumers; over
    AMQP it does not say how many messages they hold, so that needs the URL of its `management` API. If only
    that does not answer, the number is not known.

    Raises:
        kombu.exceptions.OperationalError: if the broker does not answer.
    """
    app = app or current_app
    queues = list(app.amqp.queues)
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)
        if connection.transport.driver_type == "redis":
            return _lengths_in_redis(connection, queues)
        found = {queue: _declared(connection, queue) for queue in queues}
        held = _held(management, connection.virtual_host or "/") if management else {}
    return {
        queue: dataclasses.replace(length, unacknowledged=held.get(queue)) for queue, length in found.items()
    }


def _held(management: str, virtual_host: str) -> dict[str, int]:
    try:
        return rabbitmq_api.unacknowledged(management, virtual_host)
    except OperationalError as error:
        logger.warning("unacknowledged messages are not known: %s", error)
        return {}


def _declared(connection: Any, queue: str) -> QueueLength:
    """What a passive declaration returns. The broker closes the channel if there is no such queue."""
    channel: Any = connection.channel()
    try:
        declared = channel.queue_declare(queue, passive=True)
    except _missing(connection):
        return QueueLength(ready=0, consumers=0)
    channel.close()
    return QueueLength(ready=int(declared.message_count), consumers=int(declared.consumer_count))


def _lengths_in_redis(connection: Any, queues: Iterable[str]) -> dict[str, QueueLength]:
    names = list(queues)
    channel: Any = connection.channel()
    with channel.conn_or_acquire() as client:
        held = redis_unacknowledged.count(
            client, pools=[*names, "default"], prefix=str(channel.global_keyprefix)
        )
    return {
        queue: QueueLength(
            ready=_declared(connection, queue).ready,
            unacknowledged=None if held is None else held.get(queue, 0),
        )
        for queue in names
    }


def wrong_keys() -> dict[str, str]:
    """
    Return the Redis keys of the queues and of kombu that hold another type, and what is wrong with each.

    Raises:
        kombu.exceptions.OperationalError: if the broker does not answer.
    """
    with current_app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)
        channel: Any = connection.channel()
        if connection.transport.driver_type != "redis":
            return {}
        kinds = redis_kinds.of_bindings((*current_app.amqp.queues, *redis_kinds.CONTROL_EXCHANGES))
        for name in current_app.amqp.queues:  # the queue's name is also the name of its pool
            kinds |= redis_kinds.of_queue(name, sep=channel.sep, priorities=channel.priority_steps)
            keys = (f"unacked-{name}", f"unacked-index-{name}", f"unacked-mutex-{name}")
            kinds |= redis_kinds.of_pool(*keys)
        with channel.conn_or_acquire() as client:
            return redis_kinds.find(client, kinds)


def delays_whole_seconds(app: Celery) -> bool:
    """Return whether the broker delays messages itself, as RabbitMQ does: by whole seconds, at least one."""
    return "amqp" in str(app.connection_for_write().transport_cls)


def _missing(connection: Any) -> tuple[type[BaseException], ...]:
    return (ChannelError, *connection.channel_errors)


@functools.cache
def queue_of_task(app: Celery, name: str) -> str | None:
    """Return the queue that a task is routed to; None if the route names a queue that Celery does not know."""
    try:
        return str(app.amqp.router.route({}, name)["queue"].name)
    except QueueNotFound:
        return None
