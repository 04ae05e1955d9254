"""
kombu's transport for Redis, with these differences:

- One client per channel instead of a new one for every operation. A redis-py client only wraps its connection
pool
  and holds no state of an operation, but creating it takes longer than most commands. A worker needs about five
  per task.
- The data that control commands leave behind expires.
- TLS verifies the server's certificate and its host name. With `rediss://` alone, kombu verifies nothing.
- All times come from the server's clock. kombu records by the clock of one worker when it took a message, and
  compares with the clock of another. A worker whose clock is an hour ahead would redeliver the messages of all
  other workers every second.
- Messages are taken and acknowledged in batches (see `redis_batches`).
- Items are validated before kombu makes messages of them (see `redis_items`). An invalid item would end the
worker
  or be lost.
- Keys of the wrong type are left alone (see `redis_kinds`). kombu would reconnect for ever.
"""

from __future__ import annotations

import contextlib
import queue as queues
import time
from collections.abc import Iterator
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from redis.exceptions import ResponseError

from outbox.broker import redis_batches, redis_items, redis_kinds

REPLIES = ".reply.celery.pidbox"
"""The suffix of the queues that hold replies to `celery inspect` and `celery control`."""

REPLY_KEPT = 60
"""Seconds after which a reply queue expires. kombu sets no expiry when workers reply, so the replies of a slow
worker, or to a process that was killed, would stay for ever."""

REQUEST_KEPT = 3600
"""Seconds after which the binding of a reply queue is removed if its process has not removed it."""

REQUESTS = "_kombu.asked."


def install() -> None:
    """
    Make kombu use this transport for Redis URLs. Call it before the first connection of the process.

    The URL schemes stay the same, because Flower determines the type of the broker from its URL. So Celery's
    `broker_transport` is not used.
    """
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__qualname__}"
    stock: Any = redis
    stock.time = server_time  # kombu's `QoS` records and compares these times
    stock.loads = redis_items.loads


_ahead_of_monotonic: float | None = None


def server_time() -> float:
    """Return the time of the server that was last connected to; before that, the time of this process."""
    return time.time() if _ahead_of_monotonic is None else _ahead_of_monotonic + time.monotonic()


def _set_clock(client: Any) -> None:
    global _ahead_of_monotonic
    seconds, microseconds = client.time()
    _ahead_of_monotonic = seconds + microseconds / 1_000_000 - time.monotonic()


class QoS(redis_batches.QoS):
    """Keeps unacknowledged messages, unless the key for them holds another type."""

    channel: Any
    unacked_key: str
    _delivered: Any

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record that a message was taken; put it back if that cannot be recorded."""
        try:
            super().append(message, delivery_tag)
        except ResponseError as error:
            if redis_kinds.is_refusal(error):
                self.channel.put_back(message)
            raise

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message, even if the key that holds it has the wrong type."""
        try:
            super().ack(delivery_tag)
        except ResponseError as error:
            self.channel.recheck(error)
            virtual.QoS.ack(self, delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back into its queue; if Redis cannot return it, put back this process's copy."""
        try:
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
        except ResponseError as error:
            wrong = self.channel.recheck(error)
            if self.unacked_key in wrong and (message := self._delivered.get(tag)):
                self.channel.put_back(message)

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Redeliver the messages of dead workers. Called every second."""
        if not self.channel.is_unable_to_hold():
            super().restore_visible(*args, **options)


class RedisChannel(redis_batches.Channel):
    """A channel that keeps its client as long as its connection pool."""

    QoS = QoS

    brpop_timeout = 1
    """Seconds of a waiting read. An option of kombu's since 5.7."""

    state: Any
    pool: Any
    unacked_mutex_key: Any
    _do_restore_message: Any
    _get_publish_topic: Any
    _kept: tuple[Any, Any] = (None, None)
    """A pool and its client. kombu creates a new pool after a connection was lost."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._wrong: dict[str, str] = {}
        self._next_check_at = 0.0
        super().__init__(*args, **options)

    def is_unable_to_hold(self) -> bool:
        """Return whether a key for unacknowledged messages has the wrong type."""
        self._check_periodically()
        return bool(self._wrong.keys() & {self.unacked_key, self.unacked_index_key})

    def put_back(self, message: Any) -> None:
        """Put a message back to the head of its queue."""
        where = message.delivery_info
        with self.conn_or_acquire() as client, client.pipeline() as pipeline:
            self._do_restore_message(message._raw, where["exchange"], where["routing_key"], pipeline)
            pipeline.execute()

    def recheck(self, error: Exception) -> dict[str, str]:
        """
        Check the keys after Redis has refused an operation; return the wrong ones, and why.

        Raises:
            Exception: `error`, if it has another cause.
        """
        if not redis_kinds.is_refusal(error):
            raise error
        self._next_check_at = 0.0
        self._check_periodically()
        return self._wrong

    def _check_periodically(self) -> None:
        now = time.monotonic()
        if now < self._next_check_at:
            return
        self._next_check_at = now + redis_kinds.RECHECK_AFTER
        kinds = redis_kinds.of_pool(self.unacked_key, self.unacked_index_key, self.unacked_mutex_key)
        for queue in self.active_queues:
            kinds |= redis_kinds.of_queue(queue, sep=self.sep, priorities=self.priority_steps)
        with self.conn_or_acquire() as client:
            self._wrong = redis_kinds.report(client, kinds)

    def _brpop_start(self, timeout: Any = None) -> None:
        if self.is_unable_to_hold():
            return
        if not self._wrong:
            # Without one that nobody asked for: kombu 5.5 and 5.6 read None as for ever, and a worker that has
            # waited so for the answers of others at its start would never ask for its own queues.
            super()._brpop_start(*([] if timeout is None else [timeout]))  # type: ignore[misc]
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        every = [self._q_for_pri(queue, priority) for priority in self.priority_steps for queue in queues]
        if keys := [key for key in every if key not in self._wrong]:
            self._in_poll = self.client.connection
            self._brpop_sent_at = time.monotonic()
            self.client.connection.send_command("BRPOP", *keys, timeout or self.brpop_timeout)

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except ResponseError as error:
            if not self.recheck(error):
                raise
            raise queues.Empty from error

    def acknowledge_gathered(self) -> None:
        """Send the gathered acknowledgements, unless a key has the wrong type; then they come again later."""
        try:
            super().acknowledge_gathered()
        except ResponseError as error:
            self.recheck(error)

    def _size(self, queue: str) -> int:
        keys = [self._q_for_pri(queue, priority) for priority in self.priority_steps]
        with self.conn_or_acquire() as client, client.pipeline() as pipeline:
            for key in keys:
                pipeline.llen(key)
            sizes = pipeline.execute(raise_on_error=False)
        for size in sizes:
            if isinstance(size, Exception) and not redis_kinds.is_refusal(size):
                raise size
        return sum(size for size in sizes if isinstance(size, int))

    def get_table(self, exchange: str) -> Any:
        """Return the queues of an exchange; if its key has the wrong type, those that this process declared."""
        try:
            return super().get_table(exchange)
        except ResponseError as error:
            if not redis_kinds.is_refusal(error):
                raise
            self._report(exchange)
            return self.state.exchanges.get(exchange, {}).get("table", [])

    def is_heard(self, exchange: str, routing_key: str) -> bool:
        """Return whether anybody receives what is published to a fanout exchange now."""
        with self.conn_or_acquire() as client:  # receivers ignore an empty text
            return bool(client.publish(self._get_publish_topic(exchange, routing_key), ""))

    def _report(self, exchange: str) -> None:
        with self.conn_or_acquire() as client:
            redis_kinds.report(client, redis_kinds.of_bindings([exchange]))

    @contextlib.contextmanager
    def _without_wrong_key(self, exchange: str) -> Iterator[None]:
        """Continue without the key of an exchange if it has the wrong type."""
        try:
            yield
        except ResponseError as error:
            if not redis_kinds.is_refusal(error):
                raise
            self._report(exchange)

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # such a client holds the connection it waits on
            client = super()._create_client(asynchronous=True)  # type: ignore[misc]
            _set_clock(client)
            return client
        if self._kept[0] is not self.pool:
            client = super()._create_client()  # type: ignore[misc]
            _set_clock(client)
            self._kept = (self.pool, client)
        return self._kept[1]

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = super()._connparams(asynchronous=asynchronous)  # type: ignore[misc]
        if any(name.startswith("ssl_") for name in found):
            found |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        return found

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        try:
            super()._put(queue, message, **options)
        except ResponseError as error:
            if not redis_kinds.is_refusal(error):
                raise
            raise redis_kinds.WrongKind(f"the key of the queue {queue} has the wrong type") from error
        if queue.endswith(REPLIES):
            with self.conn_or_acquire() as client:
                client.expire(queue, REPLY_KEPT)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        with self._without_wrong_key(exchange):
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]
            if exchange.endswith(REPLIES.removeprefix(".")):
                self._forget_requests(exchange, self.sep.join((routing_key or "", pattern or "", queue or "")))

    def _forget_requests(self, exchange: str, newest: str) -> None:
        """Record a request for replies, and remove the bindings of old ones."""
        requests = f"{REQUESTS}{exchange}"
        with self.conn_or_acquire() as client:
            now, _ = client.time()
            gone = client.zrangebyscore(requests, "-inf", now - REQUEST_KEPT)
            with client.pipeline() as pipeline:
                if gone:
                    pipeline.srem(self.keyprefix_queue % (exchange,), *gone)
                    pipeline.zrem(requests, *gone)
                pipeline.zadd(requests, {newest: now})
                pipeline.expire(requests, REQUEST_KEPT)
                pipeline.execute()


class Transport(redis_batches.Transport):
    """The transport for `redis://` and `rediss://`; see the module."""

    Channel = RedisChannel
