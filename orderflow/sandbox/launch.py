"""
Start sandbox servers as real processes, for tests and for whoever else needs the outside world.

One server:

    with Sandbox("payments", tmp_path) as payments:
        payments.url                                      # http://127.0.0.1:20731
        payments.control(fault="error", status=503, times=1, match="order-42")
        payments.ledger(kind="payment_intent")            # what really happened
        payments.kill(); payments.start()                 # SIGKILL; the same port and ledger again

All of them, the mailbox included:

    with World(tmp_path) as world:
        world.payments.url, world.smtp.email_url, world.mailbox.url

In tests that run side by side on the same servers, give every fault a `match` that only your own order has, and
ask for `ledger(match=...)` instead of clearing it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast
from urllib.parse import urlencode

from .access import authorization, email_url, password_in

HOST = "127.0.0.1"
# Below the ports that the kernel gives to outgoing connections: nobody is given ours between two starts.
PORTS = range(20_000, 32_768)
START_TIMEOUT = 10.0
PROBE_TIMEOUT = 0.5
ASK_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
# Tries to find a port that is still free when the server binds it.
START_TRIES = 5
# Entries fetched at once by `ledger`.
PAGE = 1_000

PROJECT = Path(__file__).resolve().parents[2]
PROVIDERS = ("payments", "warehouse", "smtp", "sms", "push")
NAMES = (*PROVIDERS, "mailbox")


class NotStarted(Exception):
    """A sandbox server did not come up; the message has what it printed."""


class ControlRefused(Exception):
    """The control side of a server answered with an error; the message is its sentence."""


def free_port() -> int:
    """Return a port nobody listens on at this moment."""
    while True:
        # Not from the random module: tests that run side by side start from the same seed.
        port = secrets.choice(PORTS)
        with socket.socket() as probe:
            # As the servers do: a connection of the last run that still lingers is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port


class Sandbox:
    """
    One sandbox server in a process of its own, which ends with the process that started it.

    Args:
        name: payments, warehouse, smtp, sms, push or mailbox.
        data_dir: where the ledger is kept; servers of different names may share it.
        options: more command line options, such as `["--key-hours", "0"]`.
        port, smtp_port: fixed ports; by default free ones, kept over `stop` and `start`.
        start: whether to start at once.
    """

    def __init__(
        self,
        name: str,
        data_dir: Path | str,
        *,
        options: Sequence[str] = (),
        port: int | None = None,
        smtp_port: int | None = None,
        start: bool = True,
    ) -> None:
        self.name = name
        self.data_dir = Path(data_dir).resolve()
        self.options = list(options)
        self.port = port
        self.smtp_port = smtp_port
        self.process: subprocess.Popen[bytes] | None = None
        if start:
            self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def password(self) -> str:
        """What the control side and the mail server ask for."""
        return password_in(self.data_dir)

    @property
    def email_url(self) -> str:
        """`EMAIL_URL` for clients of the mail server; with the password."""
        return email_url(self.password, f"{HOST}:{self.smtp_port}")

    @property
    def log_file(self) -> Path:
        """What the server printed, since the first start."""
        return self.data_dir / f"{self.name}.log"

    def start(self) -> Self:
        """
        Start the server and wait until it answers. Without effect when it runs.

        Raises:
            NotStarted: if it does not come up.
        """
        if self.process is not None and self.process.poll() is None:
            return self
        self.data_dir.mkdir(parents=True, exist_ok=True)
        given = self.port, self.smtp_port
        tries = START_TRIES if given == (None, None) else 1
        while True:
            tries -= 1
            self.port = given[0] or free_port()
            if self.name == "smtp":
                self.smtp_port = given[1] or free_port()
            try:
                return self._start_once()
            except NotStarted:
                self.port, self.smtp_port = given
                if not tries:
                    raise

    def stop(self) -> None:
        """Stop the server as an operator would (SIGTERM). Its ledger stays."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
            self._reap()

    def kill(self) -> None:
        """Take the server away without a warning (SIGKILL). Its ledger stays."""
        if self.process is not None:
            self.process.kill()
            self._reap()

    def control(self, **fault: object) -> dict[str, Any]:
        """Add a fault, for example `control(fault="drop_after", times=1, match="order-42")`, and return it."""
        return self._ask("POST", "/_control", fault)

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults with how often each `struck`, those that are used up included."""
        return list(self._ask("GET", "/_control")["faults"])

    def clear_faults(self, fault_id: int | None = None) -> None:
        """Remove one fault, or all of them."""
        self._ask("DELETE", "/_control" if fault_id is None else f"/_control/{fault_id}")

    @contextlib.contextmanager
    def failing(self, **fault: object) -> Iterator[dict[str, Any]]:
        """Misbehave inside a `with` block only."""
        added = self.control(**fault)
        try:
            yield added
        finally:
            with contextlib.suppress(ControlRefused):  # Somebody has cleared all faults.
                self.clear_faults(added["id"])

    def clear(self) -> None:
        """Make the server as new: no faults, an empty ledger, no idempotency key remembered."""
        self.clear_faults()
        self._ask("DELETE", "/_ledger")

    def ledger(self, *, kind: str | None = None, match: str | None = None) -> list[dict[str, Any]]:
        """
        Return what really happened, oldest first.

        Args:
            kind: only entries of this kind, for example payment_intent or refund.
            match: only entries in which this text occurs.
        """
        entries: list[dict[str, Any]] = []
        after = 0
        while True:
            page = self._ledger_page(kind, match, after=after, limit=PAGE)
            entries += page["entries"]
            if not page["has_more"]:
                return entries
            after = page["next_after"]

    def change(self, kind: str, name: str, **changes: object) -> dict[str, Any]:
        """Let what was made come into another state: `change("payment_intent", "pi_…", status="succeeded")`."""
        return self._ask("PATCH", "/_ledger", {"kind": kind, "id": name, "changes": changes})

    def count(self, *, kind: str | None = None, match: str | None = None) -> int:
        """Count what `ledger` would return, without fetching it."""
        return int(self._ledger_page(kind, match, limit=0)["total"])

    def calls(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the latest requests, newest first, whether they had an effect or not."""
        return list(self._ask("GET", f"/_calls?limit={limit}")["calls"])

    def _start_once(self) -> Self:
        command = [sys.executable, "-m", "orderflow.sandbox", self.name]
        command += ["--port", str(self.port), "--data", str(self.data_dir), "--stop-with-stdin"]
        if self.smtp_port is not None:
            command += ["--smtp-port", str(self.smtp_port)]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [*command, *self.options], cwd=PROJECT, stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            # Somebody else may have taken the port a moment ago and answer there; our server has ended then.
            if self._answers() and self.process.poll() is None:
                return self
            time.sleep(0.005)
        self.kill()
        raise NotStarted(f"{self.name} did not come up: {self.log_file.read_text(errors='replace')[-2000:]}")

    def _reap(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.wait()
            _close(process.stdin)

    def _answers(self) -> bool:
        try:
            return bool(self._ask("GET", "/_health", timeout=PROBE_TIMEOUT)["name"] == self.name)
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, ControlRefused):
            return False

    def _ledger_page(self, kind: str | None, match: str | None, **place: int) -> dict[str, Any]:
        narrowed = {name: value for name, value in (("kind", kind), ("match", match)) if value is not None}
        return self._ask("GET", f"/_ledger?{urlencode({**narrowed, **place})}")

    def _ask(
        self, method: str, path: str, body: object | None = None, *, timeout: float = ASK_TIMEOUT
    ) -> dict[str, Any]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(
                method,
                path,
                None if body is None else json.dumps(body),
                {"Authorization": authorization(self.password)}
                | ({} if body is None else {"Content-Type": "application/json"}),
            )
            answer = connection.getresponse()
            content = json.loads(answer.read())
        if answer.status >= 400:
            raise ControlRefused(content["error"])
        return cast(dict[str, Any], content)


class World:
    """
    The whole outside world: every server, each with its ledger in `data_dir`.

    Args:
        data_dir: where the ledgers are kept.
        options: more command line options by server, such as `{"payments": ["--key-hours", "1"]}`.
    """

    def __init__(self, data_dir: Path | str, *, options: dict[str, list[str]] | None = None) -> None:
        more = options or {}
        self._servers: dict[str, Sandbox] = {}
        try:
            for name in PROVIDERS:
                self._servers[name] = Sandbox(name, data_dir, options=more.get(name, []))
            addresses = [f"--{name}-url={self._servers[name].url}" for name in ("smtp", "sms", "push")]
            self._servers["mailbox"] = Sandbox(
                "mailbox", data_dir, options=[*addresses, *more.get("mailbox", [])]
            )
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def password(self) -> str:
        """What the control sides, the mail server and the mailbox ask for."""
        return self.mailbox.password

    @property
    def payments(self) -> Sandbox:
        return self._servers["payments"]

    @property
    def warehouse(self) -> Sandbox:
        return self._servers["warehouse"]

    @property
    def smtp(self) -> Sandbox:
        return self._servers["smtp"]

    @property
    def sms(self) -> Sandbox:
        return self._servers["sms"]

    @property
    def push(self) -> Sandbox:
        return self._servers["push"]

    @property
    def mailbox(self) -> Sandbox:
        return self._servers["mailbox"]

    def clear(self) -> None:
        """Make every server as new."""
        for name in PROVIDERS:
            self._servers[name].clear()

    def stop(self) -> None:
        for server in self._servers.values():
            server.stop()


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.close()
