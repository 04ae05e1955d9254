"""A private PostgreSQL: created, started, identified. Never daemonised, never reachable from other machines."""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from orderflow.stack.checkout.folders import ServersFolder
from orderflow.stack.ports import LOOPBACK
from orderflow.stack.problem import Problem
from orderflow.stack.servers.binaries import Program
from orderflow.stack.supervision import children
from orderflow.stack.supervision.process_specs import Kind, Process, ProcessSpec, StopRank

SUPERUSER = "postgres"
ROLE = "orderflow"
DATABASE = "orderflow"
# With the C locale initdb does not depend on installed locales; the time zone is set in SETTINGS.
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a socket's path is limited to 107 bytes; a checkout's path may be longer
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Parallel queries need more than the 64 MB of shared memory that containers have.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Postgres:
    """
    One database cluster in `folder`, with a role `orderflow` that owns the database `orderflow` and may create
    others.

    `durable` False is for tests: a crash of the machine may lose everything.
    """

    folder: ServersFolder
    program: Program
    log: Path
    port: int
    superuser_password: str
    password: str
    durable: bool = True

    @property
    def data(self) -> Path:
        return self.folder.path / "postgres"

    @property
    def url(self) -> str:
        return f"postgresql://{ROLE}:{self.password}@{LOOPBACK}:{self.port}/{DATABASE}"

    def exists(self) -> bool:
        """Return whether the cluster has been created."""
        return (self.data / "PG_VERSION").exists()

    def spec(self) -> ProcessSpec:
        """Return the process for the supervisor."""
        return ProcessSpec(
            name="postgres",
            kind=Kind.SERVER,
            start=self.start,
            is_ready=self.is_ready,
            log=self.log,
            # SIGTERM would wait for every client to leave.
            stop_by=signal.SIGINT,
            stop_rank=StopRank.DATABASE,
            # The last backends of a killed server hold its shared memory for a moment.
            may_try_again=lambda log: "is still in use" in log or "already exists" in log,
        )

    def start(self) -> Process:
        """
        Start the server; create the cluster first if there is none.

        Raises:
            Problem: if the cluster cannot be created, or has another major version.
        """
        if not self.exists():
            self._initialise()
        self._check_version()
        self._end_stale_server()
        settings = SETTINGS | {"port": str(self.port)} | ({} if self.durable else FORGETFUL)
        if self.program.version >= (18,):
            settings["io_method"] = "sync"  # saves the three I/O workers
        command = [str(self.program.path), "-D", str(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return children.start(
            self.folder.account.wrap(command, death_signal=signal.SIGINT),
            environment=ENVIRONMENT,
            log=self.log,
            cwd=self.folder.path,
            death_signal=signal.SIGINT,
            run_as=self.folder.account.popen_options,
        )

    def is_ready(self, process: Process) -> bool:
        """
        Return whether this server, and no other, accepts connections.

        Raises:
            Problem: if another server answers on its port, or the stored passwords are not the cluster's.
        """
        lines = self._pid_file()
        if len(lines) < 8 or lines[0] != str(process.pid) or lines[7] != "ready":
            return False
        import psycopg  # here, because `down`, `status` and `reset` run without the packages

        try:
            with psycopg.connect(**self._superuser_connection()) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError as error:
            if "authentication failed" in str(error):
                raise Problem(
                    "The private database was created with other passwords than those in "
                    ".orderflow/secrets.json. Restore that file, or start over with: python3 run.py reset"
                ) from error
            return False
        if row is None or Path(row[0]).resolve() != self.data.resolve():
            raise Problem(
                f"Another PostgreSQL answers at port {self.port}. Run again: another port will be chosen."
            )
        return True

    def _superuser_connection(self) -> dict[str, Any]:
        return {
            "host": LOOPBACK,
            "port": self.port,
            "user": SUPERUSER,
            "password": self.superuser_password,
            "dbname": "postgres",
            "sslmode": "disable",
            "require_auth": "scram-sha-256",
            "connect_timeout": 5,
        }

    def _initialise(self) -> None:
        """
        Create the cluster in another folder and rename it, so that a killed start leaves no partial cluster.
        """
        half = self.folder.path / "postgres.init"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o700)
        self.folder.account.take(half)
        password_file = self.folder.path / "postgres.password"
        password_file.unlink(missing_ok=True)
        with open(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self.superuser_password + "\n")
        self.folder.account.take(password_file)
        try:
            # --no-sync: a crash of the whole machine within half a minute of the very first start may lose the
            # data.
            command = [
                "-D",
                half,
                "-U",
                SUPERUSER,
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--no-sync",
            ]
            # Writing the first 16 MB of WAL takes half of the time to create a cluster.
            small = [] if self.durable else ["--wal-segsize=1"]
            self._run(self.program.sibling("initdb"), *command, "--encoding=UTF8", *small, *self._locale())
        finally:
            password_file.unlink()
        statements = (
            f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{self.password}'",
            f"CREATE DATABASE {DATABASE} OWNER {ROLE}",
        )
        self._run(self.program.path, "--single", "-D", half, "postgres", given="\n".join(statements) + "\n")
        half.rename(self.data)

    def _locale(self) -> list[str]:
        # The C locale does not know that É is the upper case of é; this one does, and needs nothing from the
        # system.
        if self.program.version >= (17,):
            return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return ["--locale=C.UTF-8"] if os.path.exists("/usr/lib/locale/C.utf8") else ["--locale=C"]

    def _run(self, program: Path, *arguments: object, given: str = "") -> None:
        command = self.folder.account.wrap([str(program), *map(str, arguments)])
        with self.log.open("ab") as log:
            done = subprocess.run(
                command,
                input=given.encode(),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
                cwd=self.folder.path,
                check=False,
                **self.folder.account.popen_options,
            )
        if done.returncode != 0 or "FATAL" in self.log.read_text(errors="replace"):
            raise Problem(
                f"PostgreSQL could not make its files in {self.folder.path} (exit {done.returncode}).",
                log=self.log,
            )

    def _check_version(self) -> None:
        made_by = (self.data / "PG_VERSION").read_text().strip()
        if made_by != str(self.program.version[0]):
            raise Problem(
                f"The data in {self.data} is of PostgreSQL {made_by}, the server here is {self.program}. "
                "Start over with an empty database: python3 run.py reset"
            )

    def _pid_file(self) -> list[str]:
        try:
            return [line.strip() for line in (self.data / "postmaster.pid").read_text().splitlines()]
        except OSError:
            return []

    def _end_stale_server(self) -> None:
        """
        Stop a server that outlived its supervisor, and remove the pid file of a killed one.

        The pid file alone proves nothing: after a container restart the process id may belong to another
        process.
        """
        lines = self._pid_file()
        if not lines or not lines[0].isdigit():
            return
        pid = int(lines[0])
        for number, patience in ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0)):
            if not self._is_mine(pid):
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            end = time.monotonic() + patience
            while time.monotonic() < end and self._is_mine(pid):
                time.sleep(0.05)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _is_mine(self, pid: int) -> bool:
        running = children.command_line(pid)
        return "postgres" in running and str(self.data) in running
