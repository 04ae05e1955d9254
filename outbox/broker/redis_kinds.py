"""
Redis keys that hold a value of the wrong type.

Another program on the same server, or a mistyped command, can put a string where kombu keeps a list. Redis then
refuses every operation on that key, and kombu treats the refusal as a lost connection. Here such a key is
reported in the log and in `/healthz`, everything that does not need it continues, and its content is not
touched.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from kombu.exceptions import OperationalError

try:
    from redis.exceptions import ResponseError as ResponseError
except ImportError:  # the broker is RabbitMQ, and no client of Redis is installed

    class ResponseError(Exception):  # type: ignore[no-redef]
        """What a client of Redis would raise."""


LIST, HASH, SET, SORTED_SET = "list", "hash", "set", "zset"
LOCK = "lock"
"""A string with an expiry. A lock without one would be held for ever."""

RECHECK_AFTER = 5.0
"""Seconds between two checks whether a wrong key has been corrected."""

HANDOVER = "taken"
"""The suffix of the list through which a waiting worker takes a message, see `redis_batches`."""

CONTROL_EXCHANGES = ("celery.pidbox", "reply.celery.pidbox", "celeryev")

REFUSAL = re.compile(r"^(Command # \d+ .* of pipeline caused error: )?WRONGTYPE ", re.DOTALL)
"""The error of Redis, and the form in which redis-py repeats it for one command of a pipeline."""

logger = logging.getLogger(__name__)

_named: dict[str, str] = {}
"""The wrong keys that this process has reported, and the reasons."""


class WrongKind(OperationalError):
    """Redis does not accept a message, because the key of its queue holds another type."""


def is_refusal(error: Exception) -> bool:
    """Return whether Redis refused an operation because of the type of the key's value."""
    return isinstance(error, ResponseError) and bool(REFUSAL.search(str(error)))


def of_queue(queue: str, *, sep: str, priorities: Iterable[int]) -> dict[str, str]:
    """Return the keys of a queue, with their type."""
    found = {f"{queue}{sep}{priority}" if priority else queue: LIST for priority in priorities}
    return found | {f"{queue}{sep}{HANDOVER}": LIST}


def of_pool(unacked: str, index: str, mutex: str) -> dict[str, str]:
    """Return the keys that hold the unacknowledged messages of a pool, with their types."""
    return {unacked: HASH, index: SORTED_SET, mutex: LOCK}


def of_bindings(exchanges: Iterable[str]) -> dict[str, str]:
    """Return the keys that hold the bindings of exchanges, with their types."""
    names = ("_kombu.binding.%s", "_kombu.binding_permanent.%s")
    found = {name % exchange: SET for exchange in exchanges for name in names}
    return found | {"_kombu.binding_deadlines": SORTED_SET, "_kombu.asked.reply.celery.pidbox": SORTED_SET}


def report(client: Any, kinds: Mapping[str, str]) -> dict[str, str]:
    """Return which of these keys are wrong, and why; log new ones and those that have been corrected."""
    wrong = find(client, kinds)
    for key, why in wrong.items():
        if _named.get(key) != why:
            logger.error("%s. Operations that need this key fail until it is corrected. %s", why, remedy(key))
    for key in kinds:
        if key in _named and key not in wrong:
            logger.warning("The Redis key %r has been corrected", key)
    for key in kinds:
        _named.pop(key, None)
    for key, why in wrong.items():
        _named[key] = why
    return wrong


def find(client: Any, kinds: Mapping[str, str]) -> dict[str, str]:
    """Return which of these keys are wrong, and why."""
    keys = list(kinds)
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.type(key)
            pipeline.pttl(key)
        answers = pipeline.execute()
    wrong = {}
    for key, kind, left in zip(keys, answers[::2], answers[1::2], strict=True):
        found = kind.decode() if isinstance(kind, bytes) else str(kind)
        wanted = "string" if kinds[key] == LOCK else kinds[key]
        if found not in (wanted, "none"):
            wrong[key] = f"Redis holds a {found} under {key!r}, where a {kinds[key]} belongs"
        elif found != "none" and kinds[key] == LOCK and left == -1:
            wrong[key] = f"Redis holds a lock under {key!r} that never expires, so no process can take it"
    return wrong


def remedy(key: str) -> str:
    """Return how to correct a wrong key. The name is quoted for redis-cli."""
    quoted = '"' + key.encode("unicode_escape").decode().replace('"', '\\"') + '"'
    return f"If it belongs to another program, give that program its own database; then: redis-cli DEL {quoted}"
