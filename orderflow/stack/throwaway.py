"""Servers that live as long as one drill or one benchmark, with the broker that was asked for."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from . import environment, rabbitmq, servers
from .environment import Given
from .homes import ServersHome
from .units import Unit

PORTS = (*environment.SERVERS, "rabbitmq", "rabbitmq-distribution", "rabbitmq-names")
RABBITMQ, VALKEY = "rabbitmq", "valkey"


@dataclasses.dataclass(frozen=True)
class ThrowawayServers:
    """What to start, and where it will answer. `broker` is the name of the unit that is the broker."""

    units: list[Unit]
    addresses: Mapping[str, str]
    label: str
    broker: str


def choose(
    broker: str, *, place: ServersHome, logs: Path, port: Mapping[str, int], secret: Mapping[str, str]
) -> ThrowawayServers:
    """
    Describe a durable PostgreSQL, a Valkey, and with the broker `rabbitmq` a RabbitMQ node as well.

    Raises:
        Problem: if a program for one of them is missing.
    """
    needed = servers.private(place, logs=logs, port=port, secret=secret, given=Given("", "", ""))
    if broker != RABBITMQ:
        return ThrowawayServers(list(needed.units), needed.environment, needed.label, VALKEY)
    node = rabbitmq.RabbitMQ(
        home=place,
        program=rabbitmq.program(),
        log=logs / "rabbitmq.log",
        port=port["rabbitmq"],
        distribution_port=port["rabbitmq-distribution"],
        names_port=port["rabbitmq-names"],
        password=secret["valkey"],
    )
    return ThrowawayServers(
        [*needed.units, *node.units()],
        {**needed.environment, "BROKER_URL": node.url},
        f"{needed.label}, {node.program}",
        RABBITMQ,
    )
