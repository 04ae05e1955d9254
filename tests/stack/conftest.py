"""Homes for real servers on free ports. Only processes that a test has started are ever signalled."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orderflow.stack import binaries, homes, ports
from orderflow.stack.homes import Home, ServersHome
from orderflow.stack.postgres import Postgres
from orderflow.stack.units import Process
from orderflow.stack.valkey import Valkey
from tests.stack import wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other accounts may pass through, unlike pytest's own: servers of root run as one."""
    path = Path(tempfile.mkdtemp(prefix="orderflow stack "))
    path.chmod(0o711)
    yield path
    for link in path.rglob(".orderflow/servers"):
        if link.is_symlink():
            shutil.rmtree(link.resolve(), ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def home(folder: Path) -> Home:
    made = Home(folder)
    made.prepare()
    return made


@pytest.fixture
def place(home: Home) -> ServersHome:
    return homes.servers_home(home, {})


@pytest.fixture
def postgres(home: Home, place: ServersHome) -> Postgres:
    return Postgres(
        home=place,
        program=binaries.postgres().for_account(place),
        log=home.logs / "postgres.log",
        port=ports.choose(),
        superuser_password="super-secret",
        password="secret",
    )


@pytest.fixture
def valkey(home: Home, place: ServersHome) -> Valkey:
    return Valkey(
        home=place,
        program=binaries.valkey().for_account(place),
        log=home.logs / "valkey.log",
        port=ports.choose(),
        password="secret",
    )


@pytest.fixture
def run_server() -> Iterator[Callable[[Postgres | Valkey], Process]]:
    """Start a server, wait until it is ready, and see to its end."""
    started: list[Process] = []

    def start(server: Postgres | Valkey) -> Process:
        process = server.start()
        started.append(process)
        wait_until(lambda: server.is_ready(process), process)
        return process

    yield start
    for process in started:
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
