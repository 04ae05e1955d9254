"""
Sandbox servers as real processes, for tests and for other code that needs the providers.

One server:

    with Sandbox("payments", tmp_path) as payments:
        payments.url                                      # http://127.0.0.1:20731
        payments.control(fault="error", status=503, times=1, match="order-42")
        payments.ledger(kind="payment_intent")            # what happened
        payments.kill(); payments.start()                 # SIGKILL; then the same port and ledger again

All of them, with the mailbox:

    with World(tmp_path) as world:
        world.payments.url, world.smtp.email_url, world.mailbox.url

In tests that run in parallel on the same servers, give every fault a `match` that only your own order has, and
use `ledger(match=...)` instead of clearing it.
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

from orderflow import providers

from .access import authorization, email_url, password_in

HOST = "127.0.0.1"
# Below the ports that the kernel assigns to outgoing connections: none of those takes ours between two starts.
PORTS = range(20_000, 32_768)
START_TIMEOUT = 10.0
PROBE_TIMEOUT = 0.5
ASK_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
# Attempts to find a port that is still free when the server binds it.
START_TRIES = 5
# Entries that `ledger` fetches at once.
PAGE = 1_000

PROJECT = Path(__file__).resolve().parents[2]
PROVIDERS = (*providers.ORDER_SERVERS, *providers.CHANNEL_SERVERS)
NAMES = (*PROVIDERS, "mailbox")


class NotStarted(Exception):
    """A sandbox server did not come up; the message contains its output."""


class ControlRefused(Exception):
    """The control API responded with an error; the message is its text."""


def free_port() -> int:
    """Return a port that is currently free."""
    while True:
        # Not from the random module: parallel tests start from the same seed.
        port = secrets.choice(PORTS)
        with socket.socket() as probe:
            # As the servers do: a lingering connection of the last run is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port


class Sandbox:
    """
    One sandbox server in its own process, which ends with the process that started it.

    Args:
        name: payments, warehouse, smtp, sms, push or mailbox.
        data_dir: the folder of the ledger; servers with different names may share it.
        options: more command-line options, such as `["--key-hours", "0"]`.
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
        """The password of the control API and the mail server."""
        return password_in(self.data_dir)

    @property
    def email_url(self) -> str:
        """`EMAIL_URL` for clients of the mail server, with the password."""
        return email_url(self.password, f"{HOST}:{self.smtp_port}")

    @property
    def log_file(self) -> Path:
        """The output of the server since the first start."""
        return self.data_dir / f"{self.name}.log"

    def start(self) -> Self:
        """
        Start the server and wait until it responds. No effect if it is running.

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
        """Stop the server as an operator would (SIGTERM). Its ledger is kept."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
            self._reap()

    def kill(self) -> None:
        """Kill the server without warning (SIGKILL). Its ledger is kept."""
        if self.process is not None:
            self.process.kill()
            self._reap()

    def control(self, **fault: object) -> dict[str, Any]:
        """Add a fault, for example `control(fault="drop_after", times=1, match="order-42")`, and return it."""
        return self._request("POST", "/_control", fault)

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults, also used-up ones, with how often each `struck`."""
        return list(self._request("GET", "/_control")["faults"])

    def clear_faults(self, fault_id: int | None = None) -> None:
        """Remove one fault, or all of them."""
        self._request("DELETE", "/_control" if fault_id is None else f"/_control/{fault_id}")

    @contextlib.contextmanager
    def failing(self, **fault: object) -> Iterator[dict[str, Any]]:
        """Have a fault inside a `with` block only."""
        added = self.control(**fault)
        try:
            yield added
        finally:
            with contextlib.suppress(ControlRefused):  # all faults have been cleared meanwhile
                self.clear_faults(added["id"])

    def clear(self) -> None:
        """Reset the server: no faults, an empty ledger, no idempotency keys."""
        self.clear_faults()
        self._request("DELETE", "/_ledger")

    def ledger(self, *, kind: str | None = None, match: str | None = None) -> list[dict[str, Any]]:
        """
        Return what happened, oldest first.

        Args:
            kind: only entries of this kind, for example payment_intent or refund.
            match: only entries that contain this text.
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
        """Change the state of an entry: `change("payment_intent", "pi_…", status="succeeded")`."""
        return self._request("PATCH", "/_ledger", {"kind": kind, "id": name, "changes": changes})

    def count(self, *, kind: str | None = None, match: str | None = None) -> int:
        """Count what `ledger` would return, without fetching it."""
        return int(self._ledger_page(kind, match, limit=0)["total"])

    def calls(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the latest requests, newest first, whether or not they had an effect."""
        return list(self._request("GET", f"/_calls?limit={limit}")["calls"])

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
            # Another process may have taken the port meanwhile and responds there; our server has ended then.
            if self._responds() and self.process.poll() is None:
                return self
            time.sleep(0.005)
        self.kill()
        raise NotStarted(f"{self.name} did not come up: {self.log_file.read_text(errors='replace')[-2000:]}")

    def _reap(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.wait()
            _close(process.stdin)

    def _responds(self) -> bool:
        try:
            return bool(self._request("GET", "/_health", timeout=PROBE_TIMEOUT)["name"] == self.name)
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, ControlRefused):
            return False

    def _ledger_page(self, kind: str | None, match: str | None, **place: int) -> dict[str, Any]:
        narrowed = {name: value for name, value in (("kind", kind), ("match", match)) if value is not None}
        return self._request("GET", f"/_ledger?{urlencode({**narrowed, **place})}")

    def _request(
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
    All servers of the sandbox, each with its ledger in `data_dir`.

    Args:
        data_dir: the folder of the ledgers.
        options: more command-line options by server, such as `{"payments": ["--key-hours", "1"]}`.
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
        """The password of the control APIs, the mail server and the mailbox."""
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
        """Reset every server."""
        for name in PROVIDERS:
            self._servers[name].clear()

    def stop(self) -> None:
        for server in self._servers.values():
            server.stop()


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.close()
