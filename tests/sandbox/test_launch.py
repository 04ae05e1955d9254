"""Starting and stopping: fast, clean, and with a message if it fails."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orderflow.sandbox.launch import NAMES, PORTS, PROJECT, NotStarted, Sandbox, World, free_port

from .clients import ask, ship, shipment

HEAVY = ("django", "celery", "stripe", "twilio", "google", "requests", "sqlalchemy")


def run(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orderflow.sandbox", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_server_imports_nothing_heavy(name: str) -> None:
    program = (
        "import sys, time; started = time.process_time();"
        f" import orderflow.sandbox.__main__, orderflow.sandbox.{name};"
        " print(time.process_time() - started, *sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {module.partition(".")[0] for module in printed[1:]} & set(HEAVY)
    assert float(printed[0]) < 0.6, "seconds of processor time; 0.06 to 0.11 on a usual machine"


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_server_stops_at_once_and_cleanly(tmp_path: Path, stop: signal.Signals) -> None:
    with Sandbox("warehouse", tmp_path) as warehouse:
        kept_open = http.client.HTTPConnection("127.0.0.1", warehouse.port)
        kept_open.request("GET", "/_health")
        kept_open.getresponse().read()
        warehouse.control(fault="hang", latency_ms=60_000)
        waiting = socket.create_connection(("127.0.0.1", warehouse.port or 0))
        waiting.sendall(b"GET /shipments HTTP/1.1\r\n\r\n")
        assert warehouse.process is not None

        warehouse.process.send_signal(stop)

        assert warehouse.process.wait(10) == 0, "it does not wait for the minute that a request takes"
        assert warehouse.log_file.read_text().splitlines() == [
            f"warehouse listens on 127.0.0.1:{warehouse.port}"
        ]
        kept_open.close()
        waiting.close()


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import sys; from orderflow.sandbox.launch import Sandbox;"
        f" server = Sandbox('warehouse', {str(tmp_path)!r});"
        " print(server.process.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        server = int(starter.stdout.readline())
        starter.kill()

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(server, 0)
            # It may have ended and wait for its new parent to notice.
            if "State:\tZ" in Path(f"/proc/{server}/status").read_text():
                return
        except OSError:
            return
        time.sleep(0.01)
    pytest.fail("the server is still there")


def test_the_port_and_the_ledger_stay_the_same_over_a_restart(tmp_path: Path) -> None:
    with Sandbox("warehouse", tmp_path) as warehouse:
        url = warehouse.url
        ship(warehouse)

        warehouse.stop()
        with pytest.raises(OSError, match="refused"):
            ask(warehouse, "GET", "/_health")
        warehouse.start().start()

        assert warehouse.url == url
        assert warehouse.count() == 1


def test_ports_are_not_among_those_of_outgoing_connections() -> None:
    assert all(free_port() in PORTS for _ in range(20))
    assert PORTS.stop <= 32_768


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        done = run("sms", "--port", port, "--data", str(tmp_path))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"sms: cannot listen on 127.0.0.1:{port}: ")
        assert done.stderr.endswith("Choose another --port.\n")

        done = run("smtp", "--port", str(free_port()), "--smtp-port", port, "--data", str(tmp_path))
        assert done.stderr.endswith("Choose another --smtp-port.\n")

        with pytest.raises(NotStarted, match="cannot listen"):
            Sandbox("sms", tmp_path, port=int(port))


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    done = run("sms", "--port", str(free_port()), "--data", str(tmp_path / "file"))

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Choose another --data." in done.stderr


def test_the_help_names_every_server() -> None:
    printed = run("--help").stdout

    assert all(name in printed for name in NAMES)
    assert "--key-hours" in run("payments", "--help").stdout


def test_a_server_listens_on_the_loopback_address_only(tmp_path: Path) -> None:
    with Sandbox("sms", tmp_path) as sms, pytest.raises(OSError):  # noqa: PT011 (refused, or unreachable)
        socket.create_connection(("127.0.0.2", sms.port or 0), timeout=1)


def test_several_hundred_requests_a_second(warehouse: Sandbox) -> None:
    assert warehouse.process is not None
    server = psutil.Process(warehouse.process.pid)
    connection = http.client.HTTPConnection("127.0.0.1", warehouse.port, timeout=60)
    before = server.cpu_times()
    for number in range(300):
        connection.request(
            "POST",
            "/shipments",
            json.dumps(shipment()),
            {"Authorization": "Bearer token", "Idempotency-Key": str(number)},
        )
        assert connection.getresponse().read()
    connection.close()

    after = server.cpu_times()
    spent = after.user + after.system - before.user - before.system
    assert spent < 1, "seconds of processor time for 300 requests; a usual machine answers 2,000 a second"
    assert warehouse.count() == 300


@pytest.mark.parametrize(
    "head", ["Transfer-Encoding: chunked", "Content-Length: x", "Content-Length: 99999999"]
)
def test_a_body_that_cannot_be_read_is_refused(warehouse: Sandbox, head: str) -> None:
    with socket.create_connection(("127.0.0.1", warehouse.port or 0), timeout=5) as connection:
        connection.sendall(f"POST /shipments HTTP/1.1\r\n{head}\r\n\r\n".encode())
        answer = connection.makefile("rb").read()

    assert answer.startswith((b"HTTP/1.1 411", b"HTTP/1.1 400", b"HTTP/1.1 413"))


def test_every_server_of_a_world_is_stopped_with_it(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        servers = [world.payments, world.warehouse, world.smtp, world.sms, world.push, world.mailbox]
        processes = [server.process for server in servers]
        assert [ask(server, "GET", "/_health").json["name"] for server in servers] == list(NAMES)

    assert [process.returncode for process in processes if process is not None] == [0] * 6
