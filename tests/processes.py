"""
Real worker processes for tests: started with the test's database, broker and sandbox, ended by their id.

Each runs in a session of its own. `kill` ends the whole pool at once, as a lost machine would.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
from django.conf import settings
from django.db import connection

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60
"""Seconds to wait for anything before a test fails; a busy machine may need many, a quiet one few."""


def eventually(condition: Callable[[], object], what: str, *, within: float = PATIENCE) -> None:
    """
    Wait until `condition` holds.

    Raises:
        AssertionError: naming `what`, if it does not within `within` seconds.
    """
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.05)


def environment() -> dict[str, str]:
    """What a process needs to work for the running test."""
    database = connection.settings_dict
    address = f"{database['HOST'] or 'localhost'}:{database['PORT'] or 5432}"
    who = f"{quote(database['USER'])}:{quote(database['PASSWORD'] or '')}"
    return {
        **os.environ,
        "DATABASE_URL": f"postgresql://{who}@{address}/{database['NAME']}",
        "BROKER_URL": settings.BROKER_URL,
        "REDIS_URL": settings.REDIS_URL,
        "SECRET_KEY": settings.SECRET_KEY,
        "ORDERFLOW_ENV": "test",
        "EMAIL_URL": f"smtp://{settings.EMAIL_HOST}:{settings.EMAIL_PORT}",
        "PROVIDER_TIMEOUT_SECONDS": str(settings.PROVIDER_TIMEOUT.total_seconds()),
        "PYTHONUNBUFFERED": "1",
        **{
            name: getattr(settings, name)
            for name in (
                "STRIPE_API_BASE",
                "STRIPE_API_KEY",
                "WAREHOUSE_URL",
                "WAREHOUSE_TOKEN",
                "TWILIO_API_BASE",
                "TWILIO_ACCOUNT_SID",
                "TWILIO_AUTH_TOKEN",
                "TWILIO_FROM",
                "FCM_API_BASE",
                "FCM_PROJECT_ID",
                "FCM_CREDENTIALS_FILE",
            )
        },
    }


class Process:
    """One celery process and its children."""

    def __init__(self, log: Path, *arguments: str, **extra: str) -> None:
        self.log = log
        self._arguments = arguments
        self._extra = extra
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "orderflow", *self._arguments],
                cwd=ROOT,
                env=environment() | self._extra,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def wait_until_ready(self, mark: str = " ready.") -> None:
        """Wait until its log says that it takes work."""
        eventually(lambda: mark in self.output() or not self.is_alive(), f"{self._arguments} ready")
        assert self.is_alive(), self.output()[-3000:]

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        """The processes of its pool."""
        return psutil.Process(self.pid).children(recursive=True)

    def kill_child(self) -> None:
        """Take one process of the pool away without a warning."""
        self.children()[0].kill()

    def kill(self) -> None:
        """End it and its pool at once, without a warning."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait(10)


class Stack:
    """The processes a test has started."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Process] = []

    def worker(
        self, name: str, *queues: str, pool: str = "prefork", concurrency: int = 1, **extra: str
    ) -> Process:
        """Start a worker pool for these queues."""
        return self._add(
            name,
            "worker",
            "-n",
            f"{name}@test",
            "-Q",
            ",".join(queues),
            "-P",
            pool,
            "-c",
            str(concurrency),
            "--loglevel=INFO",
            "--without-gossip",
            "--without-mingle",
            ORDERFLOW_POOL=name,
            **extra,
        )

    def relay(self, **extra: str) -> Process:
        """Start a relay."""
        return self.worker("relay", "relay", pool="solo", **extra)

    def beat(self, **extra: str) -> Process:
        """Start the clock."""
        return self._add("beat", "beat", "--loglevel=INFO", **extra)

    def _add(self, name: str, *arguments: str, **extra: str) -> Process:
        process = Process(self._logs / f"{name}-{len(self._running)}.log", *arguments, **extra)
        self._running.append(process)
        return process

    def stop(self) -> None:
        """End them all, at once."""
        for process in self._running:
            process.kill()


@contextlib.contextmanager
def stack(logs: Path) -> Iterator[Stack]:
    """A place to start processes in; all end with the block."""
    started = Stack(logs)
    try:
        yield started
    finally:
        started.stop()
