"""Folders for real servers on free ports. Only processes that a test has started are signalled."""

import contextlib
import dataclasses
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orderflow.stack import ports
from orderflow.stack.checkout import folders
from orderflow.stack.checkout.folders import ServersFolder, StackFolders
from orderflow.stack.servers import binaries
from orderflow.stack.servers.postgres import Postgres
from orderflow.stack.servers.valkey import Valkey
from orderflow.stack.supervision import children
from orderflow.stack.supervision.process_specs import Process
from tests.stack import wait_until

PASSWORDS = {"postgres_superuser": "super-secret", "postgres": "secret"}


@contextlib.contextmanager
def new_folder() -> Iterator[Path]:
    """
    Make a folder that other accounts may traverse, unlike pytest's: servers started by root use another
    account.
    """
    path = Path(tempfile.mkdtemp(prefix="orderflow stack "))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


@pytest.fixture
def stack_folders(folder: Path) -> StackFolders:
    made = StackFolders(folder)
    made.prepare()
    return made


@pytest.fixture
def place(stack_folders: StackFolders) -> ServersFolder:
    return folders.servers_folder(stack_folders, {})


def describe_postgres(stack_folders: StackFolders, place: ServersFolder) -> Postgres:
    return Postgres(
        folder=place,
        program=binaries.postgres().for_account(place),
        log=stack_folders.logs / "postgres.log",
        port=ports.choose(),
        superuser_password=PASSWORDS["postgres_superuser"],
        password=PASSWORDS["postgres"],
    )


@pytest.fixture(scope="session")
def cluster() -> Iterator[ServersFolder]:
    """A folder with a database cluster that is made once. Every test leaves it usable, and stopped."""
    with new_folder() as folder:
        stack_folders = StackFolders(folder)
        stack_folders.prepare()
        place = folders.servers_folder(stack_folders, {})
        dataclasses.replace(describe_postgres(stack_folders, place), durable=False)._initialise()
        yield place


@pytest.fixture
def new_postgres(stack_folders: StackFolders, place: ServersFolder) -> Postgres:
    """A database whose cluster has not been created yet."""
    return describe_postgres(stack_folders, place)


@pytest.fixture
def postgres(stack_folders: StackFolders, cluster: ServersFolder) -> Postgres:
    return describe_postgres(stack_folders, cluster)


@pytest.fixture
def valkey(stack_folders: StackFolders, place: ServersFolder) -> Valkey:
    return Valkey(
        folder=place,
        program=binaries.valkey().for_account(place),
        log=stack_folders.logs / "valkey.log",
        port=ports.choose(),
        password="secret",
    )


@pytest.fixture
def run_server() -> Iterator[Callable[[Postgres | Valkey], Process]]:
    """Start a server, wait until it is ready, and stop it at the end."""
    started: list[Process] = []

    def start(server: Postgres | Valkey) -> Process:
        process = server.start()
        started.append(process)
        wait_until(lambda: server.is_ready(process), process)
        return process

    yield start
    for process in started:
        end(process)


def end(process: Process) -> None:
    children.send(process, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    children.end_group(process.pid)
    process.wait()
