"""
Runs the tests in several processes: what each process has for itself, and which tests it runs.

pytest-django gives each process its own database. This plugin gives it its own database numbers at the
Redis-protocol server, and its own virtual host in RabbitMQ. It keeps tests together that must not be divided:
the tests of a file, because they may share the processes that a fixture started. Where virtual hosts cannot be
created, the tests of all files that use RabbitMQ stay together too.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests import rabbitmq_hosts

ROOT = Path(__file__).resolve().parent.parent

NUMBERS_OF_A_PROCESS = 2
"""Numbered databases of the Redis-protocol server: one for the broker, one for what is shared."""

RABBITMQ = "rabbitmq"


def move_to_own_numbers(worker: str) -> None:
    """Point the addresses of the Redis-protocol server to the numbers of the process `worker`, e.g. gw1."""
    offset = NUMBERS_OF_A_PROCESS * int(worker.removeprefix("gw"))
    for variable in ("BROKER_URL", "REDIS_URL"):
        if url := os.environ.get(variable):
            os.environ[variable] = re.sub(r"/(\d+)$", lambda number: f"/{int(number[1]) + offset}", url)


def move_to_own_host(worker: str) -> None:
    """Point the address of RabbitMQ to the virtual host of the process `worker`, if it has one."""
    if rabbitmq_hosts.HAS_OWN in os.environ:
        os.environ[rabbitmq_hosts.VARIABLE] = rabbitmq_hosts.of_process(int(worker.removeprefix("gw")))


if "PYTEST_XDIST_WORKER" in os.environ:  # set before the settings are read
    move_to_own_numbers(os.environ["PYTEST_XDIST_WORKER"])
    move_to_own_host(os.environ["PYTEST_XDIST_WORKER"])


def pytest_configure(config: pytest.Config) -> None:
    """Create virtual hosts before the test processes start, because they inherit the environment."""
    processes = getattr(config.option, "numprocesses", None)
    if processes and "PYTEST_XDIST_WORKER" not in os.environ and rabbitmq_hosts.make(processes):
        os.environ[rabbitmq_hosts.HAS_OWN] = str(processes)


@functools.cache
def group_of(path: str) -> str:
    """Group the tests: those of a file, and those of all files that share a virtual host."""
    if rabbitmq_hosts.HAS_OWN in os.environ:
        return path
    return RABBITMQ if re.search("amqp|rabbitmq", (ROOT / path).read_text(), re.IGNORECASE) else path


class Scheduling(LoadScopeScheduling):
    """Assigns whole groups, in the order in which the tests were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def is_skipped(item: pytest.Item) -> bool:
    """Return whether its mark excludes it from this run."""
    return item.get_closest_marker("skip") is not None


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """
    Sort the tests after they were shuffled: first the files that take longest.

    No processor waits for those at the end, then. Within the two parts the order stays random.
    """
    yield
    takes_long = {item.path for item in items if item.get_closest_marker("processes") and not is_skipped(item)}
    items.sort(key=lambda item: item.path not in takes_long)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Make reports fit to be sent to the main process: what hostile tests log may not be valid Unicode."""
    report = yield
    return _valid(report)


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_valid(name): _valid(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_valid(item) for item in value)
    return value
