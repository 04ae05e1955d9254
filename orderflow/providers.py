"""
The five providers: their names, the consumers that call them, and their servers in the sandbox.

Breakers, status pages, the sandbox, the stack and the drill take them from here. It imports nothing of the
project, so that the servers can use it without Django.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provider:
    """An external service that orders or notifications depend on."""

    name: str
    """Also the name of its breaker and, for a channel, of its queue and worker pool."""
    consumers: tuple[str, ...]
    """The tasks that call it, and wait while it is down."""
    server: str
    """The name of its server in the sandbox."""
    is_channel: bool = False
    """Whether it delivers notifications."""


ALL = (
    Provider(
        name="payments",
        consumers=tuple(f"orders.tasks.{step}" for step in ("charge", "cancel", "refund", "refund_stranded")),
        server="payments",
    ),
    Provider(name="warehouse", consumers=("orders.tasks.fulfill", "orders.tasks.cancel"), server="warehouse"),
    Provider(name="email", consumers=("notifications.tasks.send_email",), server="smtp", is_channel=True),
    Provider(name="sms", consumers=("notifications.tasks.send_sms",), server="sms", is_channel=True),
    Provider(name="push", consumers=("notifications.tasks.send_push",), server="push", is_channel=True),
)

NAMES = tuple(provider.name for provider in ALL)
CHANNELS = tuple(provider.name for provider in ALL if provider.is_channel)
CONSUMERS = {provider.name: list(provider.consumers) for provider in ALL}

ORDER_SERVERS = tuple(provider.server for provider in ALL if not provider.is_channel)
"""The sandbox servers that the steps of an order call."""

CHANNEL_SERVERS = tuple(provider.server for provider in ALL if provider.is_channel)
"""The sandbox servers that deliver notifications."""
