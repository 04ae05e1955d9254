"""A private Valkey (or Redis): the broker, and the shared state of all workers."""

import dataclasses
import json
import signal
import socket
from pathlib import Path

from orderflow.stack.checkout.folders import ServersFolder
from orderflow.stack.ports import LOOPBACK
from orderflow.stack.problem import Problem
from orderflow.stack.servers.binaries import Program
from orderflow.stack.supervision import children
from orderflow.stack.supervision.process_specs import Kind, Process, ProcessSpec, StopRank

BROKER_DATABASE = 0
SHARED_DATABASE = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Valkey:
    """One server with its data in `folder`. `durable` False, for tests, writes nothing to disk."""

    folder: ServersFolder
    program: Program
    log: Path
    port: int
    password: str
    durable: bool = True

    @property
    def data(self) -> Path:
        return self.folder.path / "valkey"

    def url(self, database: int) -> str:
        """Return the address of one of its numbered databases."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def spec(self) -> ProcessSpec:
        """Return the process for the supervisor."""
        return ProcessSpec(
            name="valkey",
            kind=Kind.SERVER,
            start=self.start,
            is_ready=self.is_ready,
            log=self.log,
            stop_rank=StopRank.BROKER,
        )

    def start(self) -> Process:
        """Start the server. Its settings are passed through a pipe, so that `ps` does not show the password."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        self.folder.account.take(self.data)
        process = children.start(
            self.folder.account.wrap([str(self.program.path), "-"], death_signal=signal.SIGTERM),
            environment={"LC_ALL": "C"},
            log=self.log,
            cwd=self.folder.path,
            death_signal=signal.SIGTERM,
            run_as=self.folder.account.popen_options,
            stdin=children.PIPE,
        )
        assert process.stdin is not None
        try:
            process.stdin.write(self._settings().encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has died; the supervisor shows its log
        return process

    def is_ready(self, process: Process) -> bool:
        """
        Return whether this server, identified by our password and folder, answers and has loaded its data.

        While it loads, it answers some commands and refuses all others.

        Raises:
            Problem: if another server answers on its port.
        """
        try:
            answer = self._send_commands(f"AUTH {self.password}", "CONFIG GET dir", "INFO persistence")
        except OSError:
            return False
        if str(self.data.resolve()) not in answer.splitlines():
            raise Problem(
                f"Another server answers at port {self.port}. Run again: another port will be chosen."
            )
        return "loading:0" in answer.splitlines()

    def _send_commands(self, *commands: str) -> str:
        """Send commands in the protocol's inline form, which needs no client library."""
        with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
            connection.sendall("".join(f"{command}\r\n" for command in (*commands, "QUIT")).encode())
            answer = b""
            while part := connection.recv(4096):
                answer += part
        return answer.decode(errors="replace")

    def _settings(self) -> str:
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "requirepass": self.password,
            "dir": json.dumps(str(self.data), ensure_ascii=False),  # the folder may contain spaces
            "databases": "64",  # parallel test workers use a pair each
            "maxmemory-policy": "noeviction",  # a broker must refuse new data, never evict messages
            "save": '""',
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "everysec",
            "daemonize": "no",
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())
