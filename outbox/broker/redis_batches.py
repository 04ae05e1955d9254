"""
Takes messages from Redis in batches, and acknowledges them in batches.

kombu pops one message, then records it as unacknowledged: two round trips, and a process that is killed in
between loses the message. Here a script on the server moves as many messages as there are free slots from the
queue to the unacknowledged ones. It also removes those that have been acknowledged meanwhile.

A worker that finds its queue empty waits with `BLMOVE`, which moves the next message to a list beside the
queue; only one of the waiting workers is woken. The script that follows in the same request takes it from
there. If the worker is killed first, the script of any other worker takes it within a second. `BLMOVE` reads
one list only and exists since Redis 6.2, so a worker with several queues or priorities waits with kombu's
`BRPOP` instead. The message that ends such a wait is recorded as kombu does it: a process that is killed in
between loses it, and a sweep of the database sends it again.

All this applies to the event loop of a worker. Everything else works as with kombu. Like kombu's own scripts,
this one needs Redis 5 or later.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Sequence
from queue import Empty
from typing import Any

from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import NoPermissionError, NoScriptError, ResponseError

from outbox import crash_points
from outbox.broker import redis_items, redis_kinds
from outbox.broker.redis_script import NAME, TAKE

MOST_AT_ONCE = 16
"""Maximum number of messages that are taken together."""

MOST_BYTES = 4 * 1024 * 1024
"""No further message is taken in the same batch after this many bytes."""

GATHERED_FOR = 0.02
"""Seconds for which acknowledgements are gathered, unless the next request takes them along sooner."""

MOST_GATHERED = 100
"""Maximum number of acknowledgements that are gathered."""

AGAIN_AFTER = 5.0
"""Seconds after which a server that had no memory for the script is asked again."""

logger = logging.getLogger(__name__)

stock: Any = redis


class QoS(redis_items.QoS):
    """Records messages that are not recorded yet, and gathers acknowledgements."""

    channel: Any
    _delivered: Any

    def append(self, message: Any, delivery_tag: str) -> None:
        """Keep a message until it is acknowledged. One that a script has taken is recorded already."""
        if delivery_tag in self._delivered:
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def hold(self, tags: Sequence[str]) -> None:
        """Count messages as unacknowledged before they are delivered, so that all go back if one fails."""
        for tag in tags:
            virtual.QoS.append(self, None, tag)

    def ack(self, delivery_tag: Any) -> None:
        if self.channel.gathers():
            self._quick_ack(delivery_tag)
            self.channel.acknowledge_soon(delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        if requeue or not self.channel.gathers():
            super().reject(delivery_tag, requeue=requeue)
        else:
            self.ack(delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Put unacknowledged messages back at the end of a channel, after the last acknowledgements."""
        try:
            self.channel.acknowledge_gathered()
        except self.channel.connection_errors as error:
            logger.warning("Acknowledgements are missing; their messages will be delivered again: %s", error)
        super().restore_unacked_once(stderr)


class Channel(redis.Channel):
    """A channel that takes and acknowledges messages in batches."""

    QoS = QoS

    active_fanout_queues: Any
    connection: Any
    client: Any
    connection_errors: Any
    priority_steps: Any
    unacked_index_key: Any
    unacked_key: Any
    _active_queues: Any
    _closing: bool
    _expires: Any = None  # kombu 5.5 does not have it
    _q_for_pri: Any
    _queue_cycle: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        self._active: list[str] = []
        self._unacknowledged: set[str] = set()
        self._acknowledged: list[str] = []
        self._gathered_since = 0.0
        self._asked: _Request | None = None
        self._may_be_empty = False
        self._can_move = True
        self._has_priorities = False
        self._refused_until = 0.0
        self._command = ["EVAL", TAKE]
        self._prefix = f"{uuid.uuid4()}-"
        self._requests = 0
        super().__init__(*args, **options)

    @property
    def active_queues(self) -> Any:
        """The queues that are consumed; kombu calculates them twice in every iteration of the loop."""
        return self._active

    def _update_queue_cycle(self) -> None:
        self._active = [
            queue for queue in dict.fromkeys(self._active_queues) if queue not in self.active_fanout_queues
        ]
        super()._update_queue_cycle()  # type: ignore[misc]

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **options: Any) -> Any:
        """Consume a queue; one whose messages are not acknowledged must not be recorded."""
        if no_ack:
            self._unacknowledged.add(queue)
        return super().basic_consume(queue, no_ack, *args, **options)

    def gathers(self) -> bool:
        """Return whether this is the thread of an event loop, which sends gathered acknowledgements."""
        return self.connection is not None and self.connection.loop_thread == threading.get_ident()

    def acknowledge_soon(self, tag: str) -> None:
        """Acknowledge a message together with the next ones."""
        now = time.monotonic()
        if not self._acknowledged:
            self._gathered_since = now
            self.connection.loop.call_later(GATHERED_FOR, self.acknowledge_gathered)
        self._acknowledged.append(tag)
        # The loop of a worker that stops does not run its timers.
        if len(self._acknowledged) >= MOST_GATHERED or now - self._gathered_since > GATHERED_FOR:
            self.acknowledge_gathered()

    def acknowledge_gathered(self) -> None:
        """Send the gathered acknowledgements now."""
        tags, self._acknowledged = self._acknowledged, []
        if tags and self.connection is not None:
            with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipeline:
                pipeline.zrem(self.unacked_index_key, *tags)
                pipeline.hdel(self.unacked_key, *tags)
                pipeline.execute()

    def _free(self) -> int:
        """How many messages may be taken now; 0 if kombu should take them one by one."""
        qos: Any = self.qos
        if not self.gathers() or not self.ack_emulation or self._expires:
            return 0
        if time.monotonic() < self._refused_until or not self._unacknowledged.isdisjoint(self._active):
            return 0
        if "can_consume" in vars(qos):  # Celery's `worker_disable_prefetch` decides about each message
            return 1
        free = qos.can_consume_max_estimate()
        return MOST_AT_ONCE if free is None else min(free, MOST_AT_ONCE)

    def _brpop_start(self, timeout: Any = None) -> None:
        self._asked = None
        free = self._free()
        if not free:
            super()._brpop_start(*([] if timeout is None else [timeout]))  # type: ignore[misc]
            return
        if not (queues := self._queue_cycle.consume(len(self._active))):
            return
        self._requests += 1
        request = _Request(tuple(queues), most=free, prefix=f"{self._prefix}{self._requests}-")
        commands = []
        if self._may_be_empty:
            wait, request.pops = self._wait(request)
            request.waits = True
            request.most -= request.pops
            commands.append([*wait, timeout or self.brpop_timeout])
        else:
            request.acknowledged, self._acknowledged = self._acknowledged, []
        if request.most:
            commands.append(self._take(request))
        self._asked = request
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = time.monotonic()
        connection.send_packed_command(connection.pack_commands(commands))

    def _key(self, queue: str, level: int) -> str:
        return f"{self.global_keyprefix}{self._q_for_pri(queue, level)}"

    def handover(self, queue: str) -> str:
        """Return the key of the list that holds a message between `BLMOVE` and the script."""
        return f"{self.global_keyprefix}{queue}{self.sep}{redis_kinds.HANDOVER}"

    def _wait(self, request: _Request) -> tuple[list[str], bool]:
        """The command that waits for a message, and whether it pops one."""
        if len(request.queues) == 1 and self._can_move and not self._has_priorities:
            [queue] = request.queues
            return [
                "BLMOVE",
                self._key(queue, self.priority_steps[0]),
                self.handover(queue),
                "RIGHT",
                "LEFT",
            ], False
        keys = [self._key(queue, level) for level in self.priority_steps for queue in request.queues]
        return ["BRPOP", *keys], True

    def _take(self, request: _Request) -> list[Any]:
        queues = request.queues
        keys = [self.handover(queue) for queue in queues]
        keys += [self._key(queue, level) for level in self.priority_steps for queue in queues]
        return [
            *self._command,
            len(keys) + 2,
            f"{self.global_keyprefix}{self.unacked_index_key}",
            f"{self.global_keyprefix}{self.unacked_key}",
            *keys,
            len(request.acknowledged),
            *request.acknowledged,
            request.most,
            MOST_BYTES,
            request.prefix,
            len(queues),
            int(self.queue_order_strategy == "round_robin"),
            *(f', "", {json.dumps(queue)}]' for queue in queues),
        ]

    def _brpop_read(self, **options: Any) -> Any:
        request, self._asked = self._asked, None
        if request is None:
            return super()._brpop_read(**options)  # type: ignore[misc]
        try:
            popped, taken = self._answers(request)
        finally:
            self._in_poll = None
            getattr(self, "_flush_brpop_reauth", int)()  # since kombu 5.7
        self._may_be_empty = 0 < len(taken) <= request.most
        if popped:
            self._deliver_popped(*popped)
        self._deliver_taken(request, taken)
        if not popped and len(taken) < 2:
            raise Empty
        return True

    def _answers(self, request: _Request) -> tuple[Any, list[Any]]:
        """Read what the commands of a request have returned. The script returns at least one text."""
        connection = self.client.connection
        try:
            waited, refusal = None, None
            if request.waits:
                try:
                    waited = connection.read_response()
                except ResponseError as error:
                    refusal = error
            taken: list[Any] = []
            if request.most:
                try:
                    taken = connection.read_response()
                    self._command = ["EVALSHA", NAME]
                except ResponseError as error:
                    self._on_refusal(error)
                    self._acknowledged = request.acknowledged + self._acknowledged
                    self.connection.loop.call_soon(self.acknowledge_gathered)
        except self.connection_errors:
            connection.disconnect()
            raise
        if refusal is not None:
            self._on_refused_wait(refusal)
        return (waited if request.pops else None), taken

    def _on_refused_wait(self, refusal: ResponseError) -> None:
        if not isinstance(refusal, NoPermissionError) and "unknown command" not in str(refusal).lower():
            raise refusal
        self._can_move = False  # `BLMOVE` exists since Redis 6.2

    def _on_refusal(self, error: ResponseError) -> None:
        """
        Continue without the script if the server cannot run it.

        Raises:
            ResponseError: if the server refused it for another reason.
        """
        text = str(error)
        if isinstance(error, NoScriptError) or "NOSCRIPT" in text:
            self._command = ["EVAL", TAKE]
        elif "OOM" in text or "used memory > 'maxmemory'" in text:
            self._refused_until = time.monotonic() + AGAIN_AFTER  # popping one message frees memory
        else:
            raise error

    def _deliver_popped(self, key: Any, item: Any) -> None:
        key = bytes_to_str(key).removeprefix(self.global_keyprefix)
        queue = key.rsplit(self.sep, 1)[0]
        self._has_priorities = self._has_priorities or key != queue
        self._queue_cycle.rotate(queue)
        self.connection._deliver(stock.loads(bytes_to_str(item)), queue)

    def _deliver_taken(self, request: _Request, taken: list[Any]) -> None:
        tags = [f"{request.prefix}{number}" for number in range(1, len(taken))]
        if not tags:
            return
        crash_points.reached("worker.taken")
        qos: Any = self.qos
        qos.hold(tags)
        if self._closing:
            return  # they go back with all other unacknowledged messages
        origin = bytes_to_str(taken[0])
        self._has_priorities = self._has_priorities or origin.startswith("!")
        numbers = origin.removeprefix("!").split(",")
        for number, item, tag in zip(numbers, taken[1:], tags, strict=True):
            queue = request.queues[int(number) - 1]
            self._queue_cycle.rotate(queue)
            self.connection.deliver_taken(stock.loads(bytes_to_str(item)), queue, channel=self, tag=tag)


class _Request:
    """What a channel has asked for, and not read yet."""

    def __init__(self, queues: tuple[str, ...], *, most: int, prefix: str) -> None:
        self.queues, self.most, self.prefix = queues, most, prefix
        self.acknowledged: list[str] = []
        self.waits = self.pops = False


class Transport(redis_items.Transport):
    """Knows the event loop that its channels belong to."""

    Channel = Channel

    loop: Any = None
    loop_thread: int | None = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        self.loop, self.loop_thread = loop, threading.get_ident()
        super().register_with_event_loop(connection, loop)
