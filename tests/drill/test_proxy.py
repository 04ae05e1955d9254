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
    """Answers each line with the same line."""

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
    """A proxy in a process of its own, as in a drill."""

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

    def tell(self, **planned):
        return proxy.set_routes(self.control, way=planned)["way"]

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
    running.tell(refuse=False, hang=False, latency=0, cut=True)


def ask(connection, text=b"hello\n"):
    connection.sendall(text)
    answer = b""
    while not answer.endswith(b"\n"):
        part = connection.recv(4096)
        if not part:
            raise ConnectionResetError
        answer += part
    return answer


def test_what_is_sent_arrives_and_the_answer_comes_back(network):
    large = b"x" * 300_000 + b"\n"
    with network.connect() as connection:
        assert ask(connection) == b"hello\n"
        assert ask(connection, large) == large


def test_a_cut_resets_what_is_connected_and_lets_others_in(network):
    with network.connect() as connection:
        ask(connection)
        network.tell(cut=True)
        with pytest.raises(ConnectionError):
            ask(connection)
    with network.connect() as connection:
        assert ask(connection) == b"hello\n"


def test_refusing_resets_what_is_connected_and_lets_nobody_in(network):
    with network.connect() as connection:
        ask(connection)
        network.tell(refuse=True)
        with pytest.raises(ConnectionError):
            ask(connection)
    with pytest.raises(ConnectionRefusedError):
        network.connect()

    network.tell(refuse=False)
    with network.connect() as connection:
        assert ask(connection) == b"hello\n"


def test_hanging_lets_everybody_in_and_answers_nobody_until_it_ends(network):
    with network.connect() as before:
        ask(before)
        network.tell(hang=True)
        before.settimeout(BRIEF)
        with pytest.raises(TimeoutError):
            ask(before)
        with network.connect(timeout=BRIEF) as during, pytest.raises(TimeoutError):
            ask(during)

        network.tell(hang=False)
        before.settimeout(5)
        assert before.recv(100) == b"hello\n", "what was sent meanwhile arrives late"


def test_latency_delays_each_answer_but_not_the_ones_behind_it(network):
    network.tell(latency=BRIEF)
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


def test_troubles_add_up_and_are_shown(network):
    network.tell(hang=True)
    shown = network.tell(latency=0.5)
    assert shown["hang"]
    assert shown["latency"] == 0.5
    assert not shown["refuse"]


def test_a_server_that_is_gone_resets_whoever_comes(network):
    lonely = Network(ports.choose())
    try:
        with lonely.connect() as connection, pytest.raises(ConnectionError):
            ask(connection)
    finally:
        lonely.process.terminate()
        lonely.process.wait(5)


def test_what_the_control_port_does_not_know_is_refused(network):
    with pytest.raises(proxy.InvalidCommand, match="KeyError"):
        proxy.set_routes(network.control, elsewhere={"hang": True})
    with pytest.raises(proxy.InvalidCommand, match="not 'explode'"):
        network.tell(explode=True)
    assert network.answers()
