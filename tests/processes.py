"""
Real processes for tests: workers with the test's database, broker and sandbox; servers and networks that fail.

Celery processes run in their own session. `kill` ends the whole pool at once, like the loss of a machine;
`freeze` stops it without ending it, like a machine that swaps or sleeps.
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
from typing import TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import psutil
import redis
from django.conf import settings
from django.db import connection

from orderflow.stack import ports
from orderflow.stack.servers import binaries

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60
"""Seconds to wait for a condition before a test fails. A busy machine may need many, an idle one few."""


def eventually(condition: Callable[[], T], what: str | Callable[[], object], *, within: float = PATIENCE) -> T:
    """
    Wait until `condition` holds; return what it returned.

    Raises:
        AssertionError: naming `what`, if it does not within `within` seconds.
    """
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within} s: {what() if callable(what) else what}"
        time.sleep(0.03)
    return found


def environment() -> dict[str, str]:
    """Return the environment of a process that works for the running test."""
    database = connection.settings_dict
    address = f"{database['HOST'] or 'localhost'}:{database['PORT'] or 5432}"
    who = f"{quote(database['USER'])}:{quote(database['PASSWORD'] or '')}"
    sender = f"{quote(settings.EMAIL_HOST_USER or '')}:{quote(settings.EMAIL_HOST_PASSWORD or '', safe='')}"
    return {
        **os.environ,
        "DATABASE_URL": f"postgresql://{who}@{address}/{database['NAME']}",
        "BROKER_URL": settings.BROKER_URL,
        "REDIS_URL": settings.REDIS_URL,
        "SECRET_KEY": settings.SECRET_KEY,
        "ORDERFLOW_ENV": "test",
        "LOG_LEVEL": "INFO",
        "EMAIL_URL": f"smtp://{sender}@{settings.EMAIL_HOST}:{settings.EMAIL_PORT}",
        "PROVIDER_TIMEOUT_SECONDS": str(settings.PROVIDER_TIMEOUT.total_seconds()),
        "PYTHONPATH": str(ROOT),
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
                "SANDBOX_PASSWORD",
            )
        },
    }


class Process:
    """One Celery process and its children."""

    def __init__(self, log: Path, *arguments: str, folder: Path = ROOT, **extra: str) -> None:
        self.log = log
        self._arguments = arguments
        self._folder = folder
        self._extra = extra
        self.start()

    def start(self) -> None:
        """Start or restart it."""
        with self.log.open("ab") as output:
            self._logged_before = output.tell()
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "outbox", "-A", "orderflow", *self._arguments],
                cwd=self._folder,
                env=environment() | self._extra,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll()

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def wait_until_ready(self) -> None:
        """Wait until its log shows that it takes work."""
        eventually(lambda: self.has_logged(" ready.") or not self.is_alive(), f"{self._arguments} ready")
        assert self.is_alive(), self.output()[-3000:]

    def output(self) -> str:
        """Return what it has logged since it was last started."""
        with self.log.open("rb") as log:
            log.seek(self._logged_before)
            return log.read().decode(errors="replace")

    def has_logged(self, text: str, *, times: int = 1) -> bool:
        return self.output().count(text) >= times

    def children(self) -> list[psutil.Process]:
        """Return the processes of its pool."""
        return psutil.Process(self.pid).children(recursive=True)

    def kill_children(self) -> None:
        """Kill the processes of its pool without a warning."""
        for child in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has already ended
                child.kill()

    def kill(self) -> None:
        """Kill it and its pool at once, without a warning."""
        self._signal_all(signal.SIGKILL)
        self._popen.wait(10)

    def freeze(self) -> None:
        """Suspend it and its pool."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume it and its pool."""
        self._signal_all(signal.SIGCONT)

    def stop(self, *, within: float = 10) -> float:
        """Request it to stop, and kill it if it does not; return how many seconds that took."""
        began = time.monotonic()
        self.ask_to_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(within)
        self.kill()
        return time.monotonic() - began

    def ask_to_stop(self) -> None:
        """Request it to stop; it finishes the tasks it has begun."""
        self._popen.terminate()

    def _signal_all(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Stack:
    """The processes that a test has started."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Process] = []

    def worker(
        self,
        name: str,
        *queues: str,
        pool: str = "prefork",
        concurrency: int = 1,
        include: str = "",
        **extra: str,
    ) -> Process:
        """Start a worker pool for these queues; `include` names further modules with tasks."""
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
            *(("-I", include) if include else ()),
            **{"ORDERFLOW_POOL": name, **extra},
        )

    def relay(self, *queues: str, include: str = "", **extra: str) -> Process:
        """Start a relay, which may also work on other queues."""
        return self.worker("relay", "relay", *queues, pool="solo", include=include, **extra)

    def beat(self, *, folder: Path = ROOT, **extra: str) -> Process:
        """Start the clock."""
        return self._add("beat", "beat", "--loglevel=INFO", folder=folder, **extra)

    def _add(self, name: str, *arguments: str, folder: Path = ROOT, **extra: str) -> Process:
        log = self._logs / f"{name}-{len(self._running)}.log"
        process = Process(log, *arguments, folder=folder, **extra)
        self._running.append(process)
        return process

    def stop(self) -> None:
        """Kill all of them at once."""
        for process in self._running:
            process.kill()


@contextlib.contextmanager
def stack(logs: Path) -> Iterator[Stack]:
    """Return a stack in which processes can be started; all of them end with the block."""
    started = Stack(logs)
    try:
        yield started
    finally:
        started.stop()


class RedisServer:
    """A Redis-protocol server for one test, which can be killed and restarted on the same port."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.port = ports.choose()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._keeping = ["--appendonly", "yes" if durable else "no", "--save", ""]
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        self._popen = subprocess.Popen(
            [binaries.valkey().path, *options, *self._keeping],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self.answers, "the broker answers")

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as link:
            return bool(link.ping())
        return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def freeze(self) -> None:
        """Let it accept connections and commands without responding."""
        self._popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._popen.send_signal(signal.SIGCONT)

    def is_asked(self) -> bool:
        """Return whether a client waits for a response of the frozen server."""
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(row[1].endswith(f":{self.port:04X}") and int(row[4].split(":")[1], 16) for row in rows)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait(10)


class Network:
    """A connection to a server that can be cut, frozen or left half-open; see `tests.chaos.forwarder`."""

    def __init__(self, url: str, *, port: int = 0) -> None:
        known, self.port = urlsplit(url), ports.choose()
        who = known.netloc.rpartition("@")[0]
        here = f"127.0.0.1:{self.port}"
        self.url = urlunsplit(known._replace(netloc=f"{who}@{here}" if who else here))
        self._target = [str(self.port), known.hostname or "127.0.0.1", str(known.port or port)]
        self.open()

    def open(self) -> None:
        """Forward connections, on the same port as before."""
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.forwarder", *self._target], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert self._popen.stdout is not None
        assert self._popen.stdout.readline(), "the forwarder did not start"

    @property
    def pid(self) -> int:
        return self._popen.pid

    def leave_half_open(self) -> None:
        """Let existing connections carry nothing more, without closing them; new ones work."""
        self._popen.send_signal(signal.SIGUSR1)

    def cut(self) -> None:
        """Break all connections, and refuse new ones until it is opened again."""
        self._popen.kill()
        self._popen.wait(10)
