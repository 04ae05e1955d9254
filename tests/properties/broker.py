"""The messages that the broker of a test holds, and losing some of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from celery import current_app

Copy = tuple[str, str, int]
"""The id of a message, the workflow that it is on its way to, and the generation of that delivery."""


def copies() -> set[Copy]:
    """The copies that wait in a queue, without those that a worker has taken."""
    with _client() as client:
        return {copy for name in _queues() for copy in _copies(client.lrange(name, 0, -1))}


def forget_some(forgets: Callable[[int], bool]) -> None:
    """Let the broker lose the messages at some positions of each queue. The others keep their order."""
    with _client() as client:
        for name in _queues():
            held = client.lrange(name, 0, -1)
            kept = [message for position, message in enumerate(held) if not forgets(position)]
            client.delete(name)
            if kept:
                client.rpush(name, *kept)


def _copies(held: list[Any]) -> Iterator[Copy]:
    for message in held:
        headers = json.loads(message)["headers"]
        if "generation" in headers:
            yield str(headers["message_id"]), str(headers["workflow"]), int(headers["generation"])


def _queues() -> list[str]:
    return sorted(current_app.amqp.queues)


@contextlib.contextmanager
def _client() -> Iterator[Any]:
    with current_app.connection_for_write() as link:
        yield link.default_channel.client
