"""A RabbitMQ virtual host for each test process, where they may be created."""

from __future__ import annotations

import os
import shutil
import subprocess
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import kombu

VARIABLE = "ORDERFLOW_TEST_AMQP_URL"
"""The address of RabbitMQ for the tests. The first process uses it unchanged."""

USUAL = "amqp://guest:guest@127.0.0.1:5672//"
HAS_OWN = "ORDERFLOW_TEST_AMQP_HOSTS"
"""Set if each process has its own virtual host."""

PATIENCE = 30
"""The timeout in seconds of one call of `rabbitmqctl`, which takes one or two to start."""


def url() -> str:
    """Return the address of RabbitMQ for this process."""
    return os.environ.get(VARIABLE, USUAL)


def of_process(number: int) -> str:
    """Return the address for the process of this number, counted from 0, in the process that starts them."""
    parts = urlsplit(url())
    name = unquote(parts.path.removeprefix("/")) or "/"
    path = f"/{quote(f'{name}-{number}', safe='')}" if number else parts.path
    return urlunsplit(parts._replace(path=path))


def make(processes: int) -> bool:
    """
    Create the missing virtual hosts for this number of processes; return whether each process has one.

    They are kept: creating one takes seconds, and the next run uses it again.
    """
    return answers(of_process(0)) and all(
        answers(of_process(number)) or _make(of_process(number)) for number in range(1, processes)
    )


def answers(address: str) -> bool:
    """Return whether RabbitMQ responds at this address and has the virtual host."""
    try:
        with kombu.Connection(address, connect_timeout=2) as link:
            link.ensure_connection(max_retries=1, interval_start=0, timeout=3)
    except Exception:
        return False
    return True


def own_connections(name: str) -> dict[str, object]:
    """
    Return the options of an app that shares no connection with the apps of other tests.

    kombu keeps connections by their address and options for as long as the process lives, and RabbitMQ closes
    those that send no heartbeat for two minutes: the next test to take one would find it closed.
    """
    return {"confirm_publish": True, "client_properties": {"connection_name": name}}


def _make(address: str) -> bool:
    parts = urlsplit(address)
    name, user = unquote(parts.path.removeprefix("/")), unquote(parts.username or "guest")
    is_made = _control("add_vhost", name) and _control("set_permissions", "-p", name, user, ".*", ".*", ".*")
    return is_made and answers(address)


def _control(*words: str) -> bool:
    program = shutil.which("rabbitmqctl", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        return False
    try:
        done = subprocess.run(
            [program, "--quiet", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
