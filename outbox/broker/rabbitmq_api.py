"""
RabbitMQ's management API, for the one number that AMQP does not have: messages that consumers hold.

It is a plugin of the broker (`rabbitmq_management`). Its numbers are some seconds old: the broker collects them
every five seconds by default.
"""

from __future__ import annotations

import base64
import http.client
import json
import urllib.parse

from kombu.exceptions import OperationalError

TIMEOUT = 2.0
"""Seconds to connect, and to wait for each part of the response."""

LARGEST_RESPONSE = 4 * 1024 * 1024
"""Bytes: several thousand queues."""


def unacknowledged(url: str, virtual_host: str) -> dict[str, int]:
    """
    Return the unacknowledged messages of each queue of a virtual host, by the API at `url`.

    Raises:
        kombu.exceptions.OperationalError: if the API does not answer, or not as expected.
    """
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
    user, password = (urllib.parse.unquote(text or "") for text in (parts.username, parts.password))
    secret = base64.b64encode(f"{user}:{password}".encode()).decode()
    host = urllib.parse.quote(virtual_host, safe="")
    path = f"{parts.path.rstrip('/')}/api/queues/{host}?columns=name,messages_unacknowledged"
    try:
        connection.request("GET", path, headers={"Authorization": f"Basic {secret}"})
        response = connection.getresponse()
        body = response.read(LARGEST_RESPONSE)
        if response.status != http.client.OK:
            raise OperationalError(f"RabbitMQ's management API answers {response.status}")
        return {str(one["name"]): int(one.get("messages_unacknowledged", 0)) for one in json.loads(body)}
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise OperationalError(f"RabbitMQ's management API does not answer: {error!r}") from error
    finally:
        connection.close()
