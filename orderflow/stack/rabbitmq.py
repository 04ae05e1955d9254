"""
A private RabbitMQ node for drills, where the system has the program: own name, ports, data and cookie.

It also has its own registry of node names (epmd), so that no other node of the machine sees it, and nothing is
left behind when it ends.
"""

import dataclasses
import shutil
import socket
from pathlib import Path

from . import children
from .homes import ServersHome
from .ports import LOOPBACK
from .problem import Problem
from .units import Kind, Process, StopRank, Unit

USER = "orderflow"
# Debian's wrapper on PATH changes the account and drops the environment; this is what it calls.
SCRIPTS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/homebrew/sbin/rabbitmq-server")
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
    """One node with its data in `home`."""

    home: ServersHome
    program: Program
    log: Path
    port: int
    distribution_port: int
    names_port: int
    password: str

    @property
    def folder(self) -> Path:
        return self.home.path / "rabbitmq"

    @property
    def url(self) -> str:
        return f"amqp://{USER}:{self.password}@{LOOPBACK}:{self.port}//"

    def units(self) -> list[Unit]:
        """Return what the supervisor needs: the registry of names, and the node."""
        names = Unit(
            name="rabbitmq-names",
            kind=Kind.SERVER,
            start=self._start_names,
            is_ready=lambda process: _listens(self.names_port),
            log=self.log,
            stop_rank=StopRank.DATABASE,
        )
        node = Unit(
            name="rabbitmq",
            kind=Kind.SERVER,
            start=self.start,
            is_ready=self.is_ready,
            log=self.log,
            after=(names.name,),
            stop_rank=StopRank.BROKER,
        )
        return [names, node]

    def start(self) -> Process:
        """Start the node."""
        self._prepare()
        return self._start([str(self.program.script)])

    def is_ready(self, process: Process) -> bool:
        """Tell whether the node speaks AMQP: it listens only after its queues are there."""
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
            self.home.account.wrap(command),
            environment=self._environment(),
            log=self.log,
            cwd=self.folder,
            run_as=self.home.account.popen_options,
        )

    def _prepare(self) -> None:
        if self.folder.exists():
            return
        self.folder.mkdir(mode=0o700)
        settings = (
            f"listeners.tcp.local = {LOOPBACK}:{self.port}\n"
            f"default_user = {USER}\n"
            f"default_pass = {self.password}\n"
            # Drills must not depend on how full the disk of the machine is.
            "disk_free_limit.absolute = 50MB\n"
            "log.file = false\n"
            "log.console = true\n"
            "log.console.level = warning\n"
        )
        for name, text in (("rabbitmq.conf", settings), ("plugins", "[].\n"), ("rabbitmq-env.conf", "")):
            file = self.folder / name
            file.write_text(text)
            file.chmod(0o600)
            self.home.account.take(file)
        self.home.account.take(self.folder)

    def _environment(self) -> dict[str, str]:
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/bin"
        return {
            "PATH": path,
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.folder),  # where Erlang keeps its cookie
            "ERL_EPMD_PORT": str(self.names_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": f"drill-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_BASE": str(self.folder),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "config"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            # The shell would wait beside the node and hide its death.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
        }


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=0.3).close()
    except OSError:
        return False
    return True
