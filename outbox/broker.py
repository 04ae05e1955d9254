"""Questions to the broker. Work is sent to it by `relay` alone."""

from __future__ import annotations

from typing import Any

from celery import current_app
from kombu.exceptions import ChannelError


def waiting(queue: str) -> int:
    """
    How many messages wait in `queue`; 0 when the broker does not know it yet.

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


def _missing(connection: Any) -> tuple[type[BaseException], ...]:
    return (ChannelError, *connection.channel_errors)
