"""
kombu's transport for RabbitMQ, with three differences.

Tasks are published as mandatory. RabbitMQ confirms a message even if its queue was deleted or unbound; a
mandatory message is returned first. The queue is then declared again and the message is sent again. If it is
returned once more, that counts as an error of the broker, which spends no attempt. Events and replies may have
no receiver and are published as usual.

Properties that py-amqp cannot read, such as a time in the year 10,000,000, are passed on as one header.
Otherwise they would end the process, and the next one that gets the message.

TLS always verifies the server's certificate and its host name. kombu does so only if it is given the name.
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
"""Maximum length of unreadable properties in base64, in characters."""

logger = logging.getLogger(__name__)


class NotDelivered(OperationalError):
    """No queue accepts messages with this address, although the queue was declared again."""


def install() -> None:
    """Make kombu use this transport for RabbitMQ URLs. Call it before the first connection of the process."""
    for scheme, transport in (("amqp", Transport), ("pyamqp", Transport), ("amqps", SecureTransport)):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{transport.__qualname__}"
    reading: Any = serialization
    reading.PROPERTY_CLASSES[Basic.CLASS_ID] = decode_properties


def decode_properties(buffer: Any, offset: int) -> tuple[dict[str, Any], int]:
    """Return a message's properties and where they end; unreadable properties become a header in base64."""
    try:
        properties, end = serialization.decode_properties_basic(buffer, offset)
    except Exception as error:  # struct.error, UnicodeDecodeError, OverflowError, FrameSyntaxError and more
        raw = base64.b64encode(bytes(buffer[offset:])).decode()
        found = {"unreadable_properties": raw[:LONGEST_HEADER], "unreadable_because": repr(error)}
        return {"application_headers": found}, len(buffer)
    return properties, end


class AmqpChannel(pyamqp.Channel):
    """A channel that records which of its messages are returned."""

    events: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._returned: list[str] = []
        self.events["basic_return"].add(self._on_returned)

    def basic_publish_confirm(
        self, message: Any, exchange: str = "", routing_key: str = "", **options: Any
    ) -> Any:
        """
        Publish a message and wait until the broker has confirmed it.

        Raises:
            NotDelivered: if it is a task and no queue accepts it.
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
            raise NotDelivered(
                f"no queue accepts {exchange or 'the default exchange'}/{routing_key}: {problem}"
            )
        return None

    def _try(self, publish: Callable[[], Any]) -> str:
        """Publish; return why no queue accepted the message, or an empty string."""
        self._returned.clear()
        try:
            publish()
        except amqp.NotFound as missing:  # the exchange is missing too; the channel has reopened itself
            return str(missing)
        return "; ".join(self._returned)

    def _on_returned(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        self._returned.append(str(error))


def declare_again(app: Celery, *, exchange: str, routing_key: str) -> None:
    """Declare the queues of an address again; log if the broker refuses."""
    logger.warning("No queue accepts messages for %s/%s: declaring it again", exchange, routing_key)
    try:
        queues.declare_again(app, exchange=exchange, routing_key=routing_key)
    except amqp.ChannelError as refused:
        logger.error("The queue for %s/%s could not be declared: %s", exchange, routing_key, refused)


class Connection(pyamqp.Connection):
    """A connection whose channels record returned messages."""

    Channel = AmqpChannel


class _Verifying:
    """The part of a transport that connects, and verifies the server."""

    client: Any
    default_connection_params: Any
    always_encrypts = False

    def establish_connection(self) -> Any:
        """Connect to the broker. The client's settings stay as they are: other hosts have other names."""
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


def verified(options: Any, *, hostname: str) -> dict[str, Any]:
    """
    Return the TLS options with which py-amqp verifies the server `hostname`.

    `options` are those of the connection: `True`, names of py-amqp, or names of redis-py (`ssl_ca_certs`).
    """
    given = options if isinstance(options, dict) else {}
    context = {name.removeprefix("ssl_"): value for name, value in given.items()}
    context.pop("check_hostname", None)
    return {
        **context,
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": context.get("server_hostname") or hostname,
    }


class Transport(_Verifying, pyamqp.Transport):
    """The transport for `amqp://`; see the module."""

    Connection = Connection


class SecureTransport(_Verifying, pyamqp.SSLTransport):
    """The transport for `amqps://`."""

    Connection = Connection
    always_encrypts = True  # also after kombu has moved on to the next host of a cluster
