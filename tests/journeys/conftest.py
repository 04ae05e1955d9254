"""Journeys run with real worker processes, and a broker of their own that may be taken away."""

from __future__ import annotations

import contextlib
import subprocess
import time

import pytest
import redis

from orderflow.sandbox.launch import free_port
from orderflow.stack import binaries
from outbox import testing
from tests import processes


class Broker:
    """A Redis-protocol server of the test's own, durable, that can be killed and started again."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self):
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly yes --appendfsync everysec".split()
        self._popen = subprocess.Popen(
            [binaries.valkey().path, *options, "--dir", self.folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        processes.eventually(self.answers, "the broker answers")

    def answers(self):
        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port) as link:
            return link.ping()
        return False

    def kill(self):
        self._popen.kill()
        self._popen.wait(10)


@pytest.fixture
def broker(tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir()
    server = Broker(folder)
    yield server
    server.kill()


@pytest.fixture
def stack(transactional_db, world, tmp_path):
    """Start worker processes for the test; see `tests.processes.Stack`."""
    testing.purge()
    with processes.stack(tmp_path) as started:
        yield started
    testing.purge()


@pytest.fixture
def elapsed():
    """Seconds since the test began."""
    began = time.monotonic()
    return lambda: time.monotonic() - began
