"""
What lists and hashes of Redis hold, before it is a message: read, looked at, and given up if it is none.

Whoever consumes says what becomes of such an item. Until that is done the item is kept where kombu keeps what
is not acknowledged, and whoever takes messages of dead workers from there meets it again.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

from kombu.transport import redis
from kombu.utils import json as kombu_json
from kombu.utils.encoding import bytes_to_str

from outbox.database import storable

LARGEST = 8 * 1024 * 1024
"""Characters of an item that are read. That of a message of ours has about a thousand."""

KEPT = storable.LONGEST_TEXT
"""Characters of an item that are kept until somebody has noted it."""

GIVEN_UP = "given_up"
"""The key of an item that is kept so."""

logger = logging.getLogger(__name__)

stock: Any = redis

GiveUp = Callable[[str, Exception, str], bool]
"""Takes an item, what is wrong with it, and its queue; whether that is noted by now."""


class NoMessage(ValueError):
    """What Redis holds is not what kombu makes of a message."""


class Unreadable:
    """An item that is no JSON, or more than is read."""

    def __init__(self, item: str, error: Exception) -> None:
        self.item, self.error = item, error


def loads(item: Any, **options: Any) -> Any:
    """What an item holds; an `Unreadable` if that cannot be said."""
    text = bytes_to_str(item)
    if len(text) > LARGEST:
        return Unreadable(text, NoMessage(f"the item has {len(text)} characters, of at most {LARGEST}"))
    try:
        return kombu_json.loads(text, **options)
    except Exception as error:  # beside a ValueError whatever a hostile `__type__` raises, and a RecursionError
        return Unreadable(text, error)


def check(item: Any) -> None:
    """
    Check that kombu can make a message of an item.

    Raises:
        NoMessage: if it cannot.
        Exception: what reading the item raised.
    """
    if isinstance(item, Unreadable):
        raise item.error
    if not isinstance(item, dict) or not isinstance(properties := item.get("properties"), dict):
        raise NoMessage("it is no object with properties")
    if not isinstance(info := properties.get("delivery_info"), dict):
        raise NoMessage("it has no 'delivery_info'")
    names = (properties.get("delivery_tag"), info.get("exchange"), info.get("routing_key"))
    if not all(isinstance(name, str) and storable.is_text(name) for name in names) or not names[0]:
        raise NoMessage("its delivery tag, exchange or routing key is no text")
    if not isinstance(item.get("body"), str | None) or not isinstance(item.get("headers"), dict | None):
        raise NoMessage("its body or its headers are of another kind than they should be")
    if not all(isinstance(item.get(name), str | None) for name in ("content-type", "content-encoding")):
        raise NoMessage("its content type or encoding is no text")


class Transport(redis.Transport):
    """Delivers messages, and hands everything else to `give_up`."""

    give_up: GiveUp | None = None
    """Set by whoever consumes; without it an item that is no message is logged, and gone."""

    def _deliver(self, item: Any, queue: Any) -> None:
        try:
            check(item)
            super()._deliver(item, queue)
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            # What goes wrong after kombu has made a message of it never comes up to here.
            self._give_up(item, error, queue)

    def _give_up(self, item: Any, error: Exception, queue: str) -> None:
        text = text_of(item)
        if self.give_up is None:
            logger.error("An item of %s is no message, and is gone: %s", queue, type(error).__name__)
        elif not self.give_up(text, error, queue):
            self._keep(text, queue)

    def _keep(self, text: str, queue: str) -> None:
        channel: Any = next(iter(self.channels or ()))
        kept = kombu_json.dumps({GIVEN_UP: text[:KEPT], "queue": queue})
        tag = f"{GIVEN_UP}-{uuid.uuid4()}"
        with channel.conn_or_acquire() as client, client.pipeline() as pipeline:
            pipeline.zadd(channel.unacked_index_key, {tag: stock.time()})
            pipeline.hset(channel.unacked_key, tag, kept)
            pipeline.execute()


class QoS(redis.QoS):
    """
    Restores messages that nobody acknowledged, and gives up what lies among them and is none.

    And takes on the next message when the last could not be acknowledged, because Redis did not answer. kombu
    counts such a message as one that is still worked on, for as long as the connection lives: with a prefetch
    count of 1 the worker takes no other, and nothing says so. Redis delivers it again after the visibility
    timeout, if it has not received the acknowledgement after all.
    """

    channel: Any
    _remove_from_indices: Any
    _quick_ack: Any

    def ack(self, delivery_tag: Any) -> None:
        try:
            super().ack(delivery_tag)
        except Exception:
            self._quick_ack(delivery_tag)
            raise

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue=requeue)
        except Exception:
            self._quick_ack(delivery_tag)
            raise

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        with self.channel.conn_or_acquire(client) as link:
            kept = link.hget(self.unacked_key, tag)
            problem = _problem_with(loads(kept)) if kept is not None else None
            if problem is None:
                super().restore_by_tag(tag, client=link, leftmost=leftmost)
                return
            item, error, queue = problem
            give_up: GiveUp | None = self.channel.connection.give_up
            if give_up is not None and give_up(item, error, queue):
                self._remove_from_indices(tag, link.pipeline()).execute()


def _problem_with(kept: Any) -> tuple[str, Exception, str] | None:
    """What was not acknowledged and is no message, why, and where it was found; None if it is one."""
    if isinstance(kept, dict) and isinstance(item := kept.get(GIVEN_UP), str):
        return item, _why(loads(item)), storable.text(kept.get("queue"))
    if not isinstance(kept, list) or len(kept) != 3 or not all(isinstance(name, str) for name in kept[1:]):
        return text_of(kept), _why(kept), "unacknowledged"
    try:
        check(kept[0])
    except Exception as error:
        return text_of(kept), error, storable.text(kept[2])
    return None


def _why(item: Any) -> Exception:
    try:
        check(item)
    except Exception as error:
        return error
    return NoMessage("kombu makes no message of it")


def text_of(item: Any) -> str:
    """An item as the text that Redis holds, or as near as can be."""
    if isinstance(item, Unreadable):
        return item.item
    try:
        return kombu_json.dumps(item)
    except Exception:
        return storable.text(item)
