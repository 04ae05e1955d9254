"""
kombu's transport for Redis with one client per channel, instead of a new one for every operation.

A client of redis-py is a front of its connection pool and holds nothing of an operation, yet making one
takes longer than most commands. A worker needs some five of them for each task.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis


def install() -> None:
    """
    Have kombu take it for URLs of Redis, in this process and before its first connection.

    Under their own scheme, not as Celery's `broker_transport`: Flower reads the broker's kind off its URL.
    """
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__qualname__}"


class Channel(redis.Channel):
    """A channel that keeps its client as long as the pool behind it."""

    pool: Any
    _kept: tuple[Any, Any] = (None, None)
    """A pool and its client. kombu makes a new pool when a connection was lost."""

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # such a client holds the connection that it waits on
            return super()._create_client(asynchronous=True)  # type: ignore[misc]
        if self._kept[0] is not self.pool:
            self._kept = (self.pool, super()._create_client())  # type: ignore[misc]
        return self._kept[1]


class Transport(redis.Transport):
    """See the module."""

    Channel = Channel
