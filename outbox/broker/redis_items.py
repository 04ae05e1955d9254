"""
Validates the items in Redis' lists and hashes before kombu makes messages of them.

The consumer decides what happens to an invalid item (`give_up`). Until that is done, the item is kept among
kombu's unacknowledged messages, where the next worker that restores messages of dead workers finds it.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable
from typing import Any

from kombu.transport import redis
from kombu.utils import json as kombu_json
from kombu.utils.encoding import bytes_to_str

from outbox.database import storable

LARGEST = 8 * 1024 * 1024
"""Maximum length of an item, in characters. A message of the outbox has about a thousand."""

KEPT = storable.LONGEST_TEXT
"""Characters of an invalid item that are kept until it is recorded."""

GIVEN_UP = "given_up"
"""The key under which a kept item is stored."""

logger = logging.getLogger(__name__)

stock: Any = redis

GiveUp = Callable[[str, Exception, str], bool]
"""Takes an item, what is wrong with it, and its queue; returns whether that was recorded."""


class NoMessage(ValueError):
    """The item is not in the format of kombu's messages."""


class Unreadable:
    """An item that is not valid JSON, or too long."""

    def __init__(self, item: str, error: Exception) -> None:
        self.item, self.error = item, error


def loads(item: Any, **options: Any) -> Any:
    """Return the content of an item, or an `Unreadable`."""
    text = bytes_to_str(item)
    if len(text) > LARGEST:
        return Unreadable(text, NoMessage(f"the item has {len(text)} characters; the limit is {LARGEST}"))
    try:
        return kombu_json.loads(text, **options)
    except Exception as error:  # ValueError, RecursionError, or whatever a hostile `__type__` raises
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
        raise NoMessage("the item is not an object with properties")
    if not isinstance(info := properties.get("delivery_info"), dict):
        raise NoMessage("the item has no 'delivery_info'")
    names = (properties.get("delivery_tag"), info.get("exchange"), info.get("routing_key"))
    if not all(isinstance(name, str) and storable.is_text(name) for name in names) or not names[0]:
        raise NoMessage("the delivery tag, exchange or routing key is not a text")
    if not isinstance(item.get("body"), str | None) or not isinstance(item.get("headers"), dict | None):
        raise NoMessage("the body or the headers have the wrong type")
    if not all(isinstance(item.get(name), str | None) for name in ("content-type", "content-encoding")):
        raise NoMessage("the content type or encoding is not a text")


class Transport(redis.Transport):
    """Delivers messages, and passes everything else to `give_up`."""

    give_up: GiveUp | None = None
    """Set by the consumer. Without it, an invalid item is logged and dropped."""

    def _deliver(self, item: Any, queue: Any) -> None:
        try:
            check(item)
            super()._deliver(item, queue)
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            # Errors after kombu has made a message of the item are never raised here.
            self._give_up(item, error, queue)

    def deliver_taken(self, item: Any, queue: str, *, channel: Any, tag: str) -> None:
        """Deliver an item that is recorded as unacknowledged under `tag`, see `redis_batches`."""
        try:
            check(item)
            item["properties"]["delivery_tag"] = tag
            super()._deliver(item, queue)
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            channel.qos.ack(tag) if self._give_up(item, error, queue, tag=tag) else channel.qos.forget(tag)

    def _give_up(self, item: Any, error: Exception, queue: str, *, tag: str = "") -> bool:
        """Give an item up; if that fails, keep it as unacknowledged and return False."""
        text = text_of(item)
        if self.give_up is None:
            logger.error("Dropped an item of %s that is not a message: %s", queue, type(error).__name__)
        elif not self.give_up(text, error, queue):
            self._keep(text, queue, tag=tag or f"{GIVEN_UP}-{uuid.uuid4()}")
            return False
        return True

    def _keep(self, text: str, queue: str, *, tag: str) -> None:
        channel: Any = next(iter(self.channels or ()))
        kept = kombu_json.dumps({GIVEN_UP: text[:KEPT], "queue": queue})
        with channel.conn_or_acquire() as client, client.pipeline() as pipeline:
            pipeline.zadd(channel.unacked_index_key, {tag: stock.time()})
            pipeline.hset(channel.unacked_key, tag, kept)
            pipeline.execute()


class QoS(redis.QoS):
    """
    Restores unacknowledged messages, and gives up invalid items among them.

    It also stops counting a message as unacknowledged when Redis did not answer the acknowledgement. kombu
    would count it for as long as the connection lives; with a prefetch count of 1 the worker would silently
    take no other message. If Redis has not received the acknowledgement, it delivers the message again after
    the visibility timeout.
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

    def forget(self, delivery_tag: Any) -> None:
        """Stop counting a message as unacknowledged here; it stays recorded."""
        self._quick_ack(delivery_tag)

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        with self.channel.conn_or_acquire(client) as redis_client:
            kept = redis_client.hget(self.unacked_key, tag)
            problem = _problem_with(loads(kept)) if kept is not None else None
            if problem is None:
                super().restore_by_tag(tag, client=redis_client, leftmost=leftmost)
                return
            item, error, queue = problem
            give_up: GiveUp | None = self.channel.connection.give_up
            if give_up is not None and give_up(item, error, queue):
                self._remove_from_indices(tag, redis_client.pipeline()).execute()


_TAKEN = re.compile(r'\[(.*), "", ("[^"]*")\]', re.DOTALL)
"""What `redis_batches` records of an item; the item need not be JSON."""


def _problem_with(kept: Any) -> tuple[str, Exception, str] | None:
    """An unacknowledged item that is not a message, its error and its queue; None if it is a message."""
    if isinstance(kept, Unreadable) and (found := _TAKEN.fullmatch(kept.item)):
        return found[1], kept.error, storable.text(kombu_json.loads(found[2]))
    if isinstance(kept, dict) and isinstance(item := kept.get(GIVEN_UP), str):
        return item, _why(loads(item)), storable.text(kept.get("queue"))
    if not isinstance(kept, list) or len(kept) != 3 or not all(isinstance(name, str) for name in kept[1:]):
        return text_of(kept), _why(kept), "unacknowledged"
    try:
        check(kept[0])
    except Exception as error:
        return text_of(kept if kept[1] else kept[0]), error, storable.text(kept[2])
    return None


def _why(item: Any) -> Exception:
    try:
        check(item)
    except Exception as error:
        return error
    return NoMessage("kombu cannot make a message of the item")


def text_of(item: Any) -> str:
    """Return an item as the text that Redis holds, or as close to it as possible."""
    if isinstance(item, Unreadable):
        return item.item
    try:
        return kombu_json.dumps(item)
    except Exception:
        return storable.text(item)
