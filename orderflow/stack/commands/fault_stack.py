"""
A throwaway stack whose processes and connections may be disturbed: a proxy in front of its servers, and all
processes restarted when they die, as a process manager would do in production.

`drill` and `alerts` run it, with a management command in the foreground that injects the faults.
"""

import dataclasses
import json
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit, urlunsplit

from orderflow.stack import sizing
from orderflow.stack.checkout import environment
from orderflow.stack.checkout.folders import ServersFolder, StackFolders
from orderflow.stack.ports import LOOPBACK, choose
from orderflow.stack.processes import Table
from orderflow.stack.servers import rabbitmq, throwaway
from orderflow.stack.supervision import children
from orderflow.stack.supervision.process_specs import Kind, Process, ProcessSpec

RESTARTS = 1_000
"""How often a process may die in a minute; faults kill processes deliberately."""

RATE_LIMIT = "1000000/minute"
"""Of the API: a client of faults is alone and may place any number of orders."""

ROUTES = ("database", "broker", "shared")
"""
The routes of the proxy. `shared` leads to the workers' shared state, which on Redis is the broker's server. The
other nodes of a cluster are reached by `broker-2` and so on.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaultStack:
    """The processes to start. `direct` is an environment whose addresses lead past the proxy."""

    specs: Sequence[ProcessSpec]
    direct: Mapping[str, str]
    port: Mapping[str, int]
    label: str


def describe(
    own: StackFolders,
    place: ServersFolder,
    caller: Mapping[str, str],
    *,
    broker: str,
    nodes: int = 1,
    pool: str = sizing.THREADS,
    without: Sequence[str] = (),
    settings: Mapping[str, str] = MappingProxyType({}),
    more_ports: Sequence[str] = (),
) -> FaultStack:
    """
    Describe the stack, and write what its processes read at their start; leave out those in `without`.

    Raises:
        Problem: if a program is missing.
    """
    secret = environment.load_secrets(own)
    port = _choose_ports(nodes, more_ports)
    own.ports.write_text(json.dumps(port, indent=1))
    chosen = throwaway.choose(broker, place=place, logs=own.logs, port=port, secret=secret, nodes=nodes)
    addresses = chosen.addresses
    servers = rabbitmq.node_names(nodes) if nodes > 1 else [chosen.broker]
    to_broker = dict(zip(_broker_routes(nodes), servers, strict=True))
    brokers = {route: port[server] for route, server in to_broker.items()}
    leads_to = {"database": port["postgres"], **brokers, "shared": port["valkey"]}
    direct = {**environment.base(caller), **_managed(own, secret, port, addresses), **settings}
    proxied = {
        **direct,
        "DATABASE_URL": by(addresses["DATABASE_URL"], port["database"]),
        "BROKER_URL": ";".join(
            by(url, port[route])
            for url, route in zip(addresses["BROKER_URL"].split(";"), to_broker, strict=True)
        ),
        "REDIS_URL": by(addresses["REDIS_URL"], port["shared"]),
        "WORKER_POOL": pool,
        # Python imports `sitecustomize` from this folder; with it the clock of each process can be set.
        "PYTHONPATH": str(own.root / "orderflow" / "chaos" / "clock"),
    }
    for folder in (own.clocks, own.held, own.targets):
        folder.mkdir(exist_ok=True)
    names = tuple(spec.name for spec in chosen.specs)
    specs = [*chosen.specs, _proxy(own, direct, port, leads_to, after=names)]
    table = Table(
        folders=own,
        environment=proxied,
        port=port,
        servers=tuple(spec.name for spec in specs),
        orders_come_first=False,
        orders_workers=2,
        clocks=own.clocks,
        held=own.held,
    )
    processes = [spec for spec in table.specs() if spec.name.removeprefix("sandbox-") not in without]
    return FaultStack(
        specs=[dataclasses.replace(spec, kind=_restarted(spec.kind)) for spec in (*specs, *processes)],
        direct=direct,
        port=port,
        label=chosen.label,
    )


def _broker_routes(nodes: int) -> list[str]:
    return ["broker", *(f"broker-{number}" for number in range(2, nodes + 1))]


def _choose_ports(nodes: int, more: Sequence[str]) -> dict[str, int]:
    names = (
        "web",
        *throwaway.ports(nodes),
        *environment.SANDBOX,
        "flower",
        "metrics",
        *ROUTES,
        *_broker_routes(nodes)[1:],
        "proxy-control",
        *more,
    )
    port: dict[str, int] = {}
    for name in names:
        port[name] = choose(taken=port.values())
    return port


def _managed(
    own: StackFolders, secret: Mapping[str, str], port: Mapping[str, int], addresses: Mapping[str, str]
) -> dict[str, str]:
    managed = environment.managed(folders=own, secret=secret, port=port, servers=addresses)
    environment.write_push_credentials(own, f"{managed['FCM_API_BASE']}/token")
    environment.write_sandbox_password(own, managed["SANDBOX_PASSWORD"])
    return {**managed, "API_RATE_LIMIT": RATE_LIMIT}


def _restarted(kind: Kind) -> Kind:
    return Kind.SERVICE if kind is Kind.SERVER else kind


def by(url: str, port: int) -> str:
    """Return the same address with another port of this machine."""
    parts = urlsplit(url)
    who = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{who}@{LOOPBACK}:{port}"))


def _proxy(
    own: StackFolders,
    variables: Mapping[str, str],
    port: Mapping[str, int],
    leads_to: Mapping[str, int],
    *,
    after: tuple[str, ...],
) -> ProcessSpec:
    log = own.logs / "proxy.log"
    control = port["proxy-control"]
    routes = [f"--route={name}={port[name]}:{target}" for name, target in leads_to.items()]

    def start() -> Process:
        command = [sys.executable, "-m", "orderflow.chaos.faults.proxy", "--control", str(control), *routes]
        return children.start(command, environment=variables, log=log, cwd=own.root)

    def is_ready(process: Process) -> bool:
        try:
            with socket.create_connection((LOOPBACK, control), timeout=0.3) as connection:
                connection.sendall(b"{}\n")
                return "broker" in json.loads(connection.makefile("rb").readline())
        except (OSError, ValueError):
            return False

    return ProcessSpec(name="proxy", kind=Kind.SERVICE, start=start, is_ready=is_ready, log=log, after=after)


def keep_logs(own: StackFolders, report: Path) -> None:
    """Save the logs of all processes before the throwaway folder is removed."""
    kept = report / "log"
    shutil.rmtree(kept, ignore_errors=True)
    if own.logs.is_dir():
        report.mkdir(parents=True, exist_ok=True)
        shutil.copytree(own.logs, kept)
        print(f"The report and the logs of all processes: {report}", flush=True)
