"""
Private RabbitMQ nodes for drills, if the program is installed: with their own names, ports, data and cookie.

One node, or a cluster. They have their own registry of node names (epmd), so that no other node on the machine
sees them and nothing is left behind when they end.
"""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from orderflow.stack.checkout.folders import ServersFolder
from orderflow.stack.ports import LOOPBACK
from orderflow.stack.problem import Problem
from orderflow.stack.supervision import children
from orderflow.stack.supervision.process_specs import Kind, Process, ProcessSpec, StopRank

USER = "orderflow"
FIRST = "rabbitmq"
"""The name of the first node's process and of its folder, which holds the cookie of all nodes."""

# Debian's wrapper on PATH changes the account and drops the environment; these are the scripts behind it.
SCRIPTS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/homebrew/sbin/rabbitmq-server")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/bin"
LOCAL = "-kernel inet_dist_use_interface {127,0,0,1}"
ANSWER_PATIENCE = 30.0
"""Seconds to wait for a node's answer; rabbitmqctl itself takes some of them to start."""

GREETING = b"AMQP\0\0\x09\x01"


@dataclasses.dataclass(frozen=True)
class Program:
    """The script that starts a node, and Erlang's registry of node names."""

    script: Path
    names: Path

    def __str__(self) -> str:
        return "RabbitMQ"


def program() -> Program:
    """
    Return the program to use.

    Raises:
        Problem: if RabbitMQ is not installed.
    """
    candidates = [Path(path) for path in SCRIPTS]
    on_path = shutil.which("rabbitmq-server")
    script = next(
        (path for path in [*candidates, *([Path(on_path)] if on_path else [])] if path.exists()), None
    )
    names = shutil.which("epmd")
    if script is None or names is None:
        raise Problem(
            "RabbitMQ is not installed here (rabbitmq-server and epmd). Install it (Debian: apt-get install "
            "rabbitmq-server, macOS: brew install rabbitmq), or use --broker redis."
        )
    return Program(script=script, names=Path(names))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RabbitMQ:
    """One node with its data in `folder`. The nodes of a cluster are started in turn and share a cookie."""

    folder: ServersFolder
    program: Program
    log: Path
    port: int
    distribution_port: int
    names_port: int
    password: str
    name: str = FIRST
    joins: tuple[int, ...] = ()
    """The ports of the nodes whose cluster it joins."""

    @property
    def node_folder(self) -> Path:
        return self.folder.path / self.name

    @property
    def url(self) -> str:
        return f"amqp://{USER}:{self.password}@{LOOPBACK}:{self.port}//"

    def specs(self) -> list[ProcessSpec]:
        """Return the processes for the supervisor: the registry of names, and the node."""
        names = ProcessSpec(
            name="rabbitmq-names",
            kind=Kind.SERVER,
            start=self._start_names,
            is_ready=lambda process: _listens(self.names_port),
            log=self.log,
            stop_rank=StopRank.DATABASE,
        )
        node = ProcessSpec(
            name=self.name,
            kind=Kind.SERVER,
            start=self.start,
            is_ready=self.is_ready,
            log=self.log,
            after=(names.name, *node_names(len(self.joins))[-1:]) if self.joins else (names.name,),
            stop_rank=StopRank.BROKER,
        )
        return [node] if self.joins else [names, node]

    def start(self) -> Process:
        """Start the node."""
        self._prepare()
        return self._start([str(self.program.script)])

    def is_ready(self, process: Process) -> bool:
        """Return whether the node speaks AMQP: it listens only after its queues are available."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=0.3) as connection:
                connection.sendall(GREETING)
                return len(connection.recv(7)) == 7
        except OSError:
            return False

    def _start_names(self) -> Process:
        self._prepare()
        return self._start([str(self.program.names), "-port", str(self.names_port), "-address", LOOPBACK])

    def _start(self, command: list[str]) -> Process:
        return children.start(
            self.folder.account.wrap(command),
            environment=self._environment(),
            log=self.log,
            cwd=self.node_folder,
            run_as=self.folder.account.popen_options,
        )

    def _prepare(self) -> None:
        if self.node_folder.exists():
            return
        self.node_folder.mkdir(mode=0o700)
        settings = (
            f"listeners.tcp.local = {LOOPBACK}:{self.port}\n"
            f"default_user = {USER}\n"
            f"default_pass = {self.password}\n"
            # Drills must not depend on the free disk space of the machine.
            "disk_free_limit.absolute = 50MB\n"
            "log.file = false\n"
            "log.console = true\n"
            "log.console.level = warning\n"
        )
        if self.joins:
            for number, port in enumerate((*self.joins, self.port), 1):
                settings += f"cluster_formation.classic_config.nodes.{number} = {_node(port)}\n"
        for name, text in (("rabbitmq.conf", settings), ("plugins", "[].\n"), ("rabbitmq-env.conf", "")):
            file = self.node_folder / name
            file.write_text(text)
            file.chmod(0o600)
            self.folder.account.take(file)
        self.folder.account.take(self.node_folder)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": PATH,
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.folder.path / FIRST),  # Erlang keeps its cookie there
            "ERL_EPMD_PORT": str(self.names_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": _node(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_BASE": str(self.node_folder),
            "RABBITMQ_MNESIA_BASE": str(self.node_folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.node_folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.node_folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(self.node_folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.node_folder / "plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.node_folder / "config"),
            "RABBITMQ_PID_FILE": str(self.node_folder / "pid"),
            # Otherwise the shell would wait beside the node and hide its death.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-noinput {LOCAL}",
        }


def node_names(nodes: int) -> list[str]:
    """The process names of a cluster with this many nodes."""
    return [FIRST, *(f"{FIRST}-{number}" for number in range(2, nodes + 1))]


def leader_of(queue: str, *, folder: Path, ports: Sequence[int], names_port: int) -> int:
    """
    Return the position among `ports` of the node that leads a quorum queue.

    `folder` is the folder with the nodes' folders. The answer of the first node that answers counts.

    Raises:
        Problem: if none answers, or the queue has no leader at the moment.
    """
    output = ""
    for port in ports:
        done = _run_command(port, ["list_queues", "name", "leader"], folder=folder, names_port=names_port)
        output = done.stdout + done.stderr
        if done.returncode:
            continue
        leaders = {row["name"]: row["leader"] for row in json.loads(done.stdout)}
        by_name = {_node(each): position for position, each in enumerate(ports)}
        if leaders.get(queue) in by_name:
            return by_name[leaders[queue]]
    raise Problem(f"No node knows the leader of the queue {queue}: {output[-300:]}")


def _run_command(
    port: int, words: list[str], *, folder: Path, names_port: int
) -> "subprocess.CompletedProcess[str]":
    command = [str(program().script.with_name("rabbitmqctl")), "--node", _node(port), "--formatter", "json"]
    variables = {
        "PATH": PATH,
        "LC_ALL": "C.UTF-8",
        "HOME": str(folder / FIRST),
        "ERL_EPMD_PORT": str(names_port),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "RABBITMQ_CTL_ERL_ARGS": LOCAL,
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
    }
    return subprocess.run(
        [*command, "--silent", *words],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ANSWER_PATIENCE,
        check=False,
    )


def _node(port: int) -> str:
    return f"drill-{port}@localhost"


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=0.3).close()
    except OSError:
        return False
    return True
