"""
Keys of Redis that hold something of another kind than belongs under their name.

Another program on the same server, or a mistyped command, can put a text where kombu keeps a list. Redis then
refuses every operation on that key, and kombu takes the refusal for a lost connection. Here such a key is named
in the log and in `/healthz`, everything that does not need it goes on, and nothing that it holds is touched.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from kombu.exceptions import OperationalError
from redis.exceptions import ResponseError

LIST, HASH, SET, SORTED_SET = "list", "hash", "set", "zset"
LOCK = "lock"
"""A text that has an end: one without is held for ever."""

LOOK_AGAIN = 5.0
"""Seconds after which somebody looks whether a key has been put right."""

CONTROL_EXCHANGES = ("celery.pidbox", "reply.celery.pidbox", "celeryev")

REFUSAL = re.compile(r"^(Command # \d+ .* of pipeline caused error: )?WRONGTYPE ", re.DOTALL)
"""How Redis says it, and how redis-py repeats that of one command among many."""

logger = logging.getLogger(__name__)

_named: dict[str, str] = {}
"""The keys that this process has complained of, and why."""


class WrongKind(OperationalError):
    """Redis does not take a message, because its queue's key holds something else."""


def is_refusal(error: Exception) -> bool:
    """Whether Redis refuses an operation because of what the key holds."""
    return isinstance(error, ResponseError) and bool(REFUSAL.search(str(error)))


def of_queue(queue: str, *, sep: str, priorities: Iterable[int]) -> dict[str, str]:
    """The keys that hold a queue, and their kind."""
    return {f"{queue}{sep}{priority}" if priority else queue: LIST for priority in priorities}


def of_pool(unacked: str, index: str, mutex: str) -> dict[str, str]:
    """The keys that hold what the workers of a pool have taken, and their kinds."""
    return {unacked: HASH, index: SORTED_SET, mutex: LOCK}


def of_bindings(exchanges: Iterable[str]) -> dict[str, str]:
    """The keys that say which queues an exchange has, and their kind."""
    names = ("_kombu.binding.%s", "_kombu.binding_permanent.%s")
    found = {name % exchange: SET for exchange in exchanges for name in names}
    return found | {"_kombu.binding_deadlines": SORTED_SET, "_kombu.asked.reply.celery.pidbox": SORTED_SET}


def look(client: Any, kinds: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with which of these keys; log what is new, and what has been put right."""
    wrong = find(client, kinds)
    for key, why in wrong.items():
        if _named.get(key) != why:
            logger.error(
                "%s. Until that is put right nothing that needs this key goes on. %s", why, remedy(key)
            )
    for key in kinds:
        if key in _named and key not in wrong:
            logger.warning("The key %r of Redis has been put right", key)
    for key in kinds:
        _named.pop(key, None)
    for key, why in wrong.items():
        _named[key] = why
    return wrong


def find(client: Any, kinds: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with which of these keys."""
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
            wrong[key] = f"Redis holds a lock under {key!r} that has no end, so nobody can take it"
    return wrong


def remedy(key: str) -> str:
    """What to do about a wrong key. The name is quoted as redis-cli reads it."""
    quoted = '"' + key.encode("unicode_escape").decode().replace('"', '\\"') + '"'
    return (
        f"If it belongs to another program, give that one a database of its own; then: redis-cli DEL {quoted}"
    )
