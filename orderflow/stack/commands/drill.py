"""
`run.py chaos`: a throwaway stack for fault injection, with a proxy in front of its servers.

`manage.py chaos` injects the faults and runs in the foreground. All processes are services here: a process that
dies is restarted, as a process manager would do in production.
"""

import argparse
import dataclasses
import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from orderflow.stack.checkout import environment, state
from orderflow.stack.checkout.folders import ServersFolder, StackFolders, servers_folder
from orderflow.stack.ports import LOOPBACK, choose
from orderflow.stack.processes import Table
from orderflow.stack.screen import Screen
from orderflow.stack.servers import rabbitmq, throwaway
from orderflow.stack.supervision import children
from orderflow.stack.supervision.process_specs import Kind, Process, ProcessSpec
from orderflow.stack.supervision.supervisor import Interrupted, Supervisor

WHAT = "python3 run.py chaos"
RESTARTS = 1_000
"""How often a process may die in a minute; the drill kills processes deliberately."""

NOT_NEEDED = ("flower", "mailbox", "jobs", "admin")
"""Processes that no order of the drill needs; without them the others get more of the machine."""

RATE_LIMIT = "1000000/minute"
"""Of the API: the drill is a single client and may place any number of orders."""

ROUTES = ("database", "broker", "shared")
"""
The routes of the proxy. `shared` leads to the workers' shared state, which on Redis is the broker's server. The
other nodes of a cluster are reached by `broker-2` and so on.
"""


def is_for_another_stack(words: Sequence[str]) -> bool:
    """Return whether the arguments name a stack other than the drill's own, or only ask for help."""
    return any(word in ("-h", "--help") or word.startswith("--not-my-own-stack") for word in words)


def run(folders: StackFolders, caller: Mapping[str, str], words: Sequence[str]) -> int:
    """
    Start a stack, inject faults into it, and return the exit code of the command that does.

    Raises:
        Problem: if the stack does not come up.
    """
    arguments = _read(words)
    report = _report(arguments, caller)
    folders.prepare()
    given = ("DATABASE_URL", "BROKER_URL", "REDIS_URL")
    caller = {name: value for name, value in caller.items() if name not in given}
    with servers_folder(folders, caller).throwaway() as place:
        own = StackFolders(root=folders.root, kept_in=place.path / "state")
        with state.hold(own, WHAT):
            try:
                return _drill(own, place, caller, arguments, [*words, "--report", str(report)])
            finally:
                _keep_logs(own, report)


def _read(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line before anything is started, so that errors in it are reported at once."""
    from orderflow.chaos import options

    parser = argparse.ArgumentParser(prog=WHAT)
    options.add_to(parser)
    arguments = parser.parse_args(list(words))
    if arguments.nodes > 1 and arguments.broker != throwaway.RABBITMQ:
        parser.error("only --broker rabbitmq has nodes")
    return arguments


def _report(arguments: argparse.Namespace, caller: Mapping[str, str]) -> Path:
    from orderflow.chaos import options

    if arguments.report:
        return Path(environment.called_from(caller), arguments.report).resolve()
    return StackFolders().root / options.DEFAULT_REPORT


def _drill(
    own: StackFolders,
    place: ServersFolder,
    caller: Mapping[str, str],
    arguments: argparse.Namespace,
    words: Sequence[str],
) -> int:
    screen = Screen(own, state.Run(pid=os.getpid(), what=WHAT, started_at=environment.called_at(caller)))
    secret = environment.load_secrets(own)
    port = _choose_ports(arguments.nodes)
    own.ports.write_text(json.dumps(port, indent=1))
    chosen = throwaway.choose(
        arguments.broker, place=place, logs=own.logs, port=port, secret=secret, nodes=arguments.nodes
    )
    addresses = chosen.addresses
    servers = rabbitmq.node_names(arguments.nodes) if arguments.nodes > 1 else [chosen.broker]
    to_broker = dict(zip(_broker_routes(arguments.nodes), servers, strict=True))
    brokers = {route: port[server] for route, server in to_broker.items()}
    leads_to = {"database": port["postgres"], **brokers, "shared": port["valkey"]}
    direct = {**environment.base(caller), **_managed(own, secret, port, addresses)}
    proxied = {
        **direct,
        "DATABASE_URL": _by(addresses["DATABASE_URL"], port["database"]),
        "BROKER_URL": ";".join(
            _by(url, port[route])
            for url, route in zip(addresses["BROKER_URL"].split(";"), to_broker, strict=True)
        ),
        "REDIS_URL": _by(addresses["REDIS_URL"], port["shared"]),
        "WORKER_POOL": arguments.pool,
        # Python imports `sitecustomize` from this folder; with it the clock of each process can be set.
        "PYTHONPATH": str(own.root / "orderflow" / "chaos" / "clock"),
    }
    own.clocks.mkdir(exist_ok=True)
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
    )
    processes = [spec for spec in table.specs() if spec.name.removeprefix("sandbox-") not in NOT_NEEDED]
    supervisor = Supervisor(
        [dataclasses.replace(spec, kind=_restarted(spec.kind)) for spec in (*specs, *processes)],
        report=screen.on_change,
        restarts=RESTARTS,
    )
    print(f"The drill's own stack: {chosen.label}", flush=True)
    screen.hold()  # from here on, processes are expected to die
    try:
        with supervisor:
            supervisor.start()
            supervisor.start_rest()
            screen.update(ready=True)
            print(f"Up after {screen.since_start():.1f} s.", flush=True)
            own_words = ["--home", str(own.state)]
            return supervisor.run_foreground(
                [sys.executable, str(own.root / "manage.py"), "chaos", "--skip-checks", *words, *own_words],
                environment=direct,
                cwd=environment.called_from(caller),
                owns_interrupt=False,
            )
    except Interrupted:
        return 130


def _broker_routes(nodes: int) -> list[str]:
    return ["broker", *(f"broker-{number}" for number in range(2, nodes + 1))]


def _choose_ports(nodes: int) -> dict[str, int]:
    names = (
        "web",
        *throwaway.ports(nodes),
        *environment.SANDBOX,
        "flower",
        *ROUTES,
        *_broker_routes(nodes)[1:],
        "proxy-control",
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


def _by(url: str, port: int) -> str:
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


def _keep_logs(own: StackFolders, report: Path) -> None:
    """Save the logs of all processes before the throwaway folder is removed."""
    kept = report / "log"
    shutil.rmtree(kept, ignore_errors=True)
    if own.logs.is_dir():
        report.mkdir(parents=True, exist_ok=True)
        shutil.copytree(own.logs, kept)
        print(f"The report and the logs of all processes: {report}", flush=True)
