"""
kombu's transport for Redis with one client per channel, instead of a new one for every operation.

A client of redis-py is a front of its connection pool and holds nothing of an operation, yet making one
takes longer than most commands. A worker needs some five of them for each task.

And with an end for what control commands leave behind.

And with TLS that verifies the server, its name included: for `rediss://` alone kombu verifies nothing.

And with one clock, the server's: kombu notes by one worker's clock when it took a message, and measures by
another's for how long. A worker whose clock is an hour ahead would take everybody's messages for those of the
dead, and deliver them again every second.

And with items that are looked at before kombu makes messages of them (see `redis_items`): it would end the
worker, or lose the item.

And with keys of a wrong kind left alone (see `redis_kinds`): kombu would connect again for ever.
"""

from __future__ import annotations

import contextlib
import queue as queues
import time
from collections.abc import Iterator
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from redis.exceptions import ResponseError

from outbox.broker import redis_items, redis_kinds

REPLIES = ".reply.celery.pidbox"
"""How the queues end in which answers to `celery inspect` and `celery control` wait for whoever asked."""

REPLY_KEPT = 60
"""Seconds. kombu knows the end of such a queue in the process that asked, not in the workers that answer: the
answers of a worker that is slow, or to a process that was killed, would stay for ever."""

ASKER_KEPT = 3600
"""Seconds after which a process is forgotten that asked and never said that it has its answers."""

ASKED = "_kombu.asked."


def install() -> None:
    """
    Have kombu take it for URLs of Redis, in this process and before its first connection.

    Under their own scheme, not as Celery's `broker_transport`: Flower reads the broker's kind off its URL.
    """
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__qualname__}"
    stock: Any = redis
    stock.time = server_time  # what its `QoS` notes, and compares with
    stock.loads = redis_items.loads


_ahead_of_monotonic: float | None = None


def server_time() -> float:
    """The time of the server that was last connected to; this process's own before that."""
    return time.time() if _ahead_of_monotonic is None else _ahead_of_monotonic + time.monotonic()


def _set_clock(client: Any) -> None:
    global _ahead_of_monotonic
    seconds, microseconds = client.time()
    _ahead_of_monotonic = seconds + microseconds / 1_000_000 - time.monotonic()


class QoS(redis_items.QoS):
    """Keeps what is not acknowledged, unless something else lies where that is kept."""

    channel: Any
    unacked_key: str
    _delivered: Any

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note that a message was taken; one that cannot be noted goes back."""
        try:
            super().append(message, delivery_tag)
        except ResponseError as error:
            if redis_kinds.is_refusal(error):
                self.channel.put_back(message)
            raise

    def ack(self, delivery_tag: str) -> None:
        """Forget a message that is done; where it was noted may be gone by then."""
        try:
            super().ack(delivery_tag)
        except ResponseError as error:
            self.channel.look_again(error)
            virtual.QoS.ack(self, delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back in its queue. Without the note of it, this process' own copy is put back."""
        try:
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
        except ResponseError as error:
            wrong = self.channel.look_again(error)
            if self.unacked_key in wrong and tag in self._delivered:
                self.channel.put_back(self._delivered[tag])

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Deliver again what the dead held. Asked for every second."""
        if not self.channel.is_unable_to_hold():
            super().restore_visible(*args, **options)


class RedisChannel(redis.Channel):
    """A channel that keeps its client as long as the pool behind it."""

    QoS = QoS

    active_queues: Any
    state: Any
    client: Any
    connection_errors: Any
    priority_steps: Any
    pool: Any
    unacked_index_key: Any
    unacked_key: Any
    unacked_mutex_key: Any
    _do_restore_message: Any
    _q_for_pri: Any
    _queue_cycle: Any
    _kept: tuple[Any, Any] = (None, None)
    """A pool and its client. kombu makes a new pool when a connection was lost."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._wrong: dict[str, str] = {}
        self._look_at = 0.0
        super().__init__(*args, **options)

    def is_unable_to_hold(self) -> bool:
        """Whether a key of the wrong kind lies where this channel would keep what it takes."""
        self._look_now_and_then()
        return bool(self._wrong.keys() & {self.unacked_key, self.unacked_index_key})

    def put_back(self, message: Any) -> None:
        """Put a message back where it was taken, to be the next one taken."""
        where = message.delivery_info
        with self.conn_or_acquire() as client, client.pipeline() as pipeline:
            self._do_restore_message(message._raw, where["exchange"], where["routing_key"], pipeline)
            pipeline.execute()

    def look_again(self, error: Exception) -> dict[str, str]:
        """
        Return what is wrong with which key, now that Redis has refused something.

        Raises:
            Exception: `error`, if it speaks of something else.
        """
        if not redis_kinds.is_refusal(error):
            raise error
        self._look_at = 0.0
        self._look_now_and_then()
        return self._wrong

    def _look_now_and_then(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + redis_kinds.LOOK_AGAIN
        kinds = redis_kinds.of_pool(self.unacked_key, self.unacked_index_key, self.unacked_mutex_key)
        for queue in self.active_queues:
            kinds |= redis_kinds.of_queue(queue, sep=self.sep, priorities=self.priority_steps)
        with self.conn_or_acquire() as client:
            self._wrong = redis_kinds.look(client, kinds)

    def _brpop_start(self, timeout: Any = None) -> None:
        if self.is_unable_to_hold():
            return
        if not self._wrong:
            super()._brpop_start(timeout)  # type: ignore[misc]
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        every = [self._q_for_pri(queue, priority) for priority in self.priority_steps for queue in queues]
        if keys := [key for key in every if key not in self._wrong]:
            self._in_poll = self.client.connection
            self._brpop_sent_at = time.monotonic()
            self.client.connection.send_command("BRPOP", *keys, timeout or self.brpop_timeout or 0)

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except ResponseError as error:
            if not self.look_again(error):
                raise
            raise queues.Empty from error

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
        """The queues of an exchange; where its key holds something else, those that this process declared."""
        try:
            return super().get_table(exchange)
        except ResponseError as error:
            if not redis_kinds.is_refusal(error):
                raise
            self._complain(exchange)
            return self.state.exchanges.get(exchange, {}).get("table", [])

    def _complain(self, exchange: str) -> None:
        with self.conn_or_acquire() as client:
            redis_kinds.look(client, redis_kinds.of_bindings([exchange]))

    @contextlib.contextmanager
    def _naming(self, exchange: str) -> Iterator[None]:
        """Go on without the key of an exchange that holds something else."""
        try:
            yield
        except ResponseError as error:
            if not redis_kinds.is_refusal(error):
                raise
            self._complain(exchange)

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # such a client holds the connection that it waits on
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
            raise redis_kinds.WrongKind(f"the key of the queue {queue} holds something else") from error
        if queue.endswith(REPLIES):
            with self.conn_or_acquire() as client:
                client.expire(queue, REPLY_KEPT)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        with self._naming(exchange):
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]
            if exchange.endswith(REPLIES.removeprefix(".")):
                self._forget_askers(exchange, self.sep.join((routing_key or "", pattern or "", queue or "")))

    def _forget_askers(self, exchange: str, newest: str) -> None:
        """Note when somebody asked, and forget where those wanted their answers who asked long ago."""
        asked = f"{ASKED}{exchange}"
        with self.conn_or_acquire() as client:
            now, _ = client.time()
            gone = client.zrangebyscore(asked, "-inf", now - ASKER_KEPT)
            with client.pipeline() as pipeline:
                if gone:
                    pipeline.srem(self.keyprefix_queue % (exchange,), *gone)
                    pipeline.zrem(asked, *gone)
                pipeline.zadd(asked, {newest: now})
                pipeline.expire(asked, ASKER_KEPT)
                pipeline.execute()


class Transport(redis_items.Transport):
    """See the module."""

    Channel = RedisChannel
