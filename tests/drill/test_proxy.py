"""The proxy, between a real client and a real server."""

import contextlib
import socket
import socketserver
import subprocess
import sys
import threading
import time

import pytest

from orderflow.chaos.faults import proxy
from orderflow.stack import ports
from tests.processes import ROOT, eventually

BRIEF = 0.2
PROXY = (sys.executable, "-m", "orderflow.chaos.faults.proxy")


class Echo(socketserver.ThreadingTCPServer):
    """Responds to each line with the same line."""

    allow_reuse_address = daemon_threads = True

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            with contextlib.suppress(OSError):
                for line in self.rfile:
                    self.wfile.write(line)

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


class Network:
    """A proxy in its own process, as in a drill."""

    def __init__(self, target):
        self.port = ports.choose()
        self.control = ports.choose(taken=[self.port])
        self.process = subprocess.Popen(
            [*PROXY, f"--control={self.control}", f"--route=way={self.port}:{target}"], cwd=ROOT
        )
        eventually(self.answers, "the proxy answers")

    def answers(self):
        try:
            return proxy.set_routes(self.control)
        except OSError:
            return False

    def change(self, **changes):
        return proxy.set_routes(self.control, way=changes)["way"]

    def connect(self, timeout=5.0):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@pytest.fixture(scope="module")
def running():
    with Echo() as server:
        network = Network(server.server_address[1])
        yield network
        network.process.terminate()
        network.process.wait(5)
        server.shutdown()


@pytest.fixture
def network(running):
    yield running
    running.change(refuse=False, hang=False, latency=0, cut=True)


def send_line(connection, text=b"hello\n"):
    connection.sendall(text)
    answer = b""
    while not answer.endswith(b"\n"):
        part = connection.recv(4096)
        if not part:
            raise ConnectionResetError
        answer += part
    return answer


def test_data_is_forwarded_in_both_directions(network):
    large = b"x" * 300_000 + b"\n"
    with network.connect() as connection:
        assert send_line(connection) == b"hello\n"
        assert send_line(connection, large) == large


def test_a_cut_resets_connections_and_accepts_new_ones(network):
    with network.connect() as connection:
        send_line(connection)
        network.change(cut=True)
        with pytest.raises(ConnectionError):
            send_line(connection)
    with network.connect() as connection:
        assert send_line(connection) == b"hello\n"


def test_refusing_resets_connections_and_accepts_none(network):
    with network.connect() as connection:
        send_line(connection)
        network.change(refuse=True)
        with pytest.raises(ConnectionError):
            send_line(connection)
    with pytest.raises(ConnectionRefusedError):
        network.connect()

    network.change(refuse=False)
    with network.connect() as connection:
        assert send_line(connection) == b"hello\n"


def test_hanging_accepts_connections_and_forwards_nothing_until_it_ends(network):
    with network.connect() as before:
        send_line(before)
        network.change(hang=True)
        before.settimeout(BRIEF)
        with pytest.raises(TimeoutError):
            send_line(before)
        with network.connect(timeout=BRIEF) as during, pytest.raises(TimeoutError):
            send_line(during)

        network.change(hang=False)
        before.settimeout(5)
        assert before.recv(100) == b"hello\n", "what was sent meanwhile arrives late"


def test_latency_delays_each_response_but_does_not_add_up(network):
    network.change(latency=BRIEF)
    with network.connect() as connection:
        begun = time.monotonic()
        connection.sendall(b"one\n")
        connection.sendall(b"two\n")
        answer = b""
        while answer.count(b"\n") < 2:
            answer += connection.recv(100)
        took = time.monotonic() - begun
    assert answer == b"one\ntwo\n"
    assert BRIEF <= took < 2 * BRIEF + 1


def test_disturbances_can_be_combined_and_are_shown(network):
    network.change(hang=True)
    shown = network.change(latency=0.5)
    assert shown["hang"]
    assert shown["latency"] == 0.5
    assert not shown["refuse"]


def test_connections_to_a_stopped_server_are_reset(network):
    lonely = Network(ports.choose())
    try:
        with lonely.connect() as connection, pytest.raises(ConnectionError):
            send_line(connection)
    finally:
        lonely.process.terminate()
        lonely.process.wait(5)


def test_unknown_commands_are_refused(network):
    with pytest.raises(proxy.InvalidCommand, match="KeyError"):
        proxy.set_routes(network.control, elsewhere={"hang": True})
    with pytest.raises(proxy.InvalidCommand, match="not 'explode'"):
        network.change(explode=True)
    assert network.answers()
