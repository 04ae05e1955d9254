"""
kombu's transport for RabbitMQ with one difference: a task that no queue takes is not delivered.

RabbitMQ confirms a message that is routed to no queue, because its queue was deleted or unbound, like any
other. Tasks are published as mandatory here, so that the broker returns such a message first. The queue is
declared again, and the message sent again; what comes back once more is an error of the broker's, for which
no attempt is spent. Events and replies, which nobody may be waiting for, are published as ever.

And with one more: properties of a message that py-amqp cannot read, such as a time in the year 10,000,000, are
handed on as one header. They would end the process, and the next one that gets the message.

And TLS verifies the server, its name included, which kombu does when told the name. Nothing turns that off.
"""

from __future__ import annotations

import base64
import functools
import logging
import ssl
from collections.abc import Callable
from typing import Any

import amqp
from amqp import serialization
from amqp.spec import Basic
from celery import Celery
from celery._state import get_current_app
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, pyamqp

from outbox.broker import queues

LONGEST_HEADER = 2 * 1024
"""Characters of properties in base64 that are handed on."""

logger = logging.getLogger(__name__)


class NotDelivered(OperationalError):
    """No queue takes messages that are sent there, although it was declared again."""


def install() -> None:
    """Have kombu take it for URLs of RabbitMQ, in this process and before its first connection."""
    for scheme, transport in (("amqp", Transport), ("pyamqp", Transport), ("amqps", SecureTransport)):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{transport.__qualname__}"
    reading: Any = serialization
    reading.PROPERTY_CLASSES[Basic.CLASS_ID] = decode_properties


def decode_properties(buffer: Any, offset: int) -> tuple[dict[str, Any], int]:
    """The properties of a message and where they end; those that cannot be read as a header in base64."""
    try:
        properties, end = serialization.decode_properties_basic(buffer, offset)
    except Exception as error:  # struct.error, UnicodeDecodeError, OverflowError, FrameSyntaxError and more
        raw = base64.b64encode(bytes(buffer[offset:])).decode()
        found = {"unreadable_properties": raw[:LONGEST_HEADER], "unreadable_because": repr(error)}
        return {"application_headers": found}, len(buffer)
    return properties, end


class AmqpChannel(pyamqp.Channel):
    """A channel that sees which of its messages come back."""

    events: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._returned: list[str] = []
        self.events["basic_return"].add(self._on_returned)

    def basic_publish_confirm(
        self, message: Any, exchange: str = "", routing_key: str = "", **options: Any
    ) -> Any:
        """
        Publish, and wait until the broker has it.

        Raises:
            NotDelivered: if it is a task that no queue takes.
        """
        if "task" not in (message.properties.get("application_headers") or {}):
            return super().basic_publish_confirm(message, exchange, routing_key, **options)
        publish = functools.partial(
            super().basic_publish_confirm, message, exchange, routing_key, **{**options, "mandatory": True}
        )
        problem = self._try(publish)
        if problem:
            declare_again(get_current_app(), exchange=exchange, routing_key=routing_key)
            problem = self._try(publish)
        if problem:
            raise NotDelivered(f"no queue takes {exchange or 'the default exchange'}/{routing_key}: {problem}")
        return None

    def _try(self, publish: Callable[[], Any]) -> str:
        """Publish; return why no queue took it, or nothing."""
        self._returned.clear()
        try:
            publish()
        except amqp.NotFound as missing:  # the exchange is gone, too; the channel has opened itself again
            return str(missing)
        return "; ".join(self._returned)

    def _on_returned(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        self._returned.append(str(error))


def declare_again(app: Celery, *, exchange: str, routing_key: str) -> None:
    """Declare the queues behind an address again; what the broker refuses there is logged."""
    logger.warning("No queue takes messages for %s/%s: it is declared again", exchange, routing_key)
    try:
        queues.declare_again(app, exchange=exchange, routing_key=routing_key)
    except amqp.ChannelError as refused:
        logger.error("The queue for %s/%s could not be declared: %s", exchange, routing_key, refused)


class Connection(pyamqp.Connection):
    """A connection of such channels."""

    Channel = AmqpChannel


class _Verifying:
    """The part of a transport that connects, with a server that is verified."""

    client: Any
    default_connection_params: Any
    always_encrypts = False

    def establish_connection(self) -> Any:
        """Connect to the broker. The client keeps its settings: a cluster's next host has another name."""
        client = self.client
        for name, default in self.default_connection_params.items():
            if not getattr(client, name, None):
                setattr(client, name, default)
        hostname, encrypted = client.hostname, client.ssl or self.always_encrypts
        options = {
            "host": f"{'127.0.0.1' if hostname == 'localhost' else hostname}:{client.port}",
            "userid": client.userid,
            "password": client.password() if callable(client.password) else client.password,
            "login_method": client.login_method,
            "virtual_host": client.virtual_host,
            "insist": client.insist,
            "ssl": verified(encrypted, hostname=hostname) if encrypted else False,
            "connect_timeout": client.connect_timeout,
            "heartbeat": client.heartbeat,
            **(client.transport_options or {}),
        }
        made: Any = Connection(**options)
        made.client = client
        made.connect()
        return made


def verified(asked: Any, *, hostname: str) -> dict[str, Any]:
    """
    What py-amqp needs to verify the server of that name, from what a connection was asked for: `True`, its own
    words, or those that redis-py and URLs have (`ssl_ca_certs`).
    """
    given = asked if isinstance(asked, dict) else {}
    context = {name.removeprefix("ssl_"): value for name, value in given.items()}
    context.pop("check_hostname", None)
    return {
        **context,
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": context.get("server_hostname") or hostname,
    }


class Transport(_Verifying, pyamqp.Transport):
    """See the module."""

    Connection = Connection


class SecureTransport(_Verifying, pyamqp.SSLTransport):
    """The same over TLS."""

    Connection = Connection
    always_encrypts = True  # also after kombu has gone on to a cluster's next host
