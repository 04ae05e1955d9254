"""Servers that live as long as one drill or one benchmark, with the requested broker."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from orderflow.stack.checkout import environment
from orderflow.stack.checkout.environment import Given
from orderflow.stack.checkout.folders import ServersFolder
from orderflow.stack.servers import choice, rabbitmq
from orderflow.stack.supervision.process_specs import ProcessSpec

PORTS = (*environment.SERVERS, "rabbitmq", "rabbitmq-distribution", "rabbitmq-names")


def ports(nodes: int) -> list[str]:
    """The names of the ports of the servers, for a RabbitMQ broker with this many nodes."""
    more = rabbitmq.node_names(nodes)[1:]
    return [*PORTS, *more, *(f"{name}-distribution" for name in more)]


RABBITMQ, VALKEY = rabbitmq.FIRST, "valkey"


@dataclasses.dataclass(frozen=True)
class ThrowawayServers:
    """The processes to start, and their addresses. `broker` is the name of the broker's process."""

    specs: list[ProcessSpec]
    addresses: Mapping[str, str]
    label: str
    broker: str


def choose(
    broker: str,
    *,
    place: ServersFolder,
    logs: Path,
    port: Mapping[str, int],
    secret: Mapping[str, str],
    nodes: int = 1,
) -> ThrowawayServers:
    """
    Describe a durable PostgreSQL, a Valkey and, for the broker `rabbitmq`, the RabbitMQ nodes.

    The broker address of a cluster names all nodes, separated as Celery expects.

    Raises:
        Problem: if a program for one of them is missing.
    """
    needed = choice.private(place, logs=logs, port=port, secret=secret, given=Given("", "", ""))
    if broker != RABBITMQ:
        return ThrowawayServers(list(needed.specs), needed.environment, needed.label, VALKEY)
    names = rabbitmq.node_names(nodes)
    cluster = [
        rabbitmq.RabbitMQ(
            folder=place,
            program=rabbitmq.program(),
            log=logs / f"{name}.log",
            port=port[name],
            distribution_port=port[f"{name}-distribution"],
            names_port=port["rabbitmq-names"],
            password=secret["valkey"],
            name=name,
            joins=tuple(port[before] for before in names[:position]),
        )
        for position, name in enumerate(names)
    ]
    return ThrowawayServers(
        [*needed.specs, *(spec for node in cluster for spec in node.specs())],
        {**needed.environment, "BROKER_URL": ";".join(node.url for node in cluster)},
        f"{needed.label}, {cluster[0].program}{f' ({nodes} nodes)' if nodes > 1 else ''}",
        RABBITMQ,
    )
