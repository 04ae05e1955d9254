"""Clients that send half a request, read nothing or never finish do not prevent others from being served."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import time

import pytest

from orderflow.stack import ports
from orderflow.stack.checkout import folders
from orderflow.stack.processes import Table
from orderflow.web import connection, worker
from tests.processes import ROOT, environment, eventually

pytestmark = pytest.mark.timeout(120)

MANY = 100
GET, POST = (
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\n",
    b"POST /api/v1/orders HTTP/1.1\r\nHost: localhost\r\n",
)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
HALVES = {
    "nothing": b"",
    "half a line": GET[:8],
    "half the headers": GET + b"X-Slow: ",
    "half a body": POST + b"Content-Length: 999\r\n\r\n{",
    "half of the chunks": POST + CHUNKED + b"5\r\n{",
    "a body that is asked for": POST + b"Content-Length: 99\r\nExpect: 100-continue\r\n\r\n",
    "whole requests whose client never leaves": GET + b"Connection: close\r\n\r\n",
}
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


PORTS = ("web", "payments", "warehouse", "smtp", "smtp-control", "sms", "push", "mailbox", "flower", "metrics")


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """The web server as run.py starts it, and its port. No test here needs a database."""
    tmp_path = tmp_path_factory.mktemp("web")
    port = ports.choose()
    stack_folders = folders.StackFolders(kept_in=tmp_path)
    stack_folders.logs.mkdir(parents=True)
    listening = dict.fromkeys(PORTS, port)
    started = environment() | {"ALLOWED_HOSTS": "localhost,127.0.0.1"}
    specs = Table(folders=stack_folders, environment=started, port=listening).specs()
    process = next(spec for spec in specs if spec.name == "web").start()
    try:
        eventually(
            lambda: answers_within(port) is not None,
            lambda: (stack_folders.logs / "web.log").read_text()[-2000:],
        )
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def front(web, tmp_path_factory):
    """Debian's nginx with the shipped configuration, in front of it."""
    if NGINX is None:
        pytest.skip("nginx is not installed here (Debian: apt-get install nginx-light)")
    port, tmp_path = ports.choose(), tmp_path_factory.mktemp("front")
    (tmp_path / "server").mkdir()
    shipped = (ROOT / "deploy/proxy/nginx.conf").read_text()
    server = (ROOT / "deploy/proxy/server-plain/plain.conf").read_text()
    changed = shipped.replace("server web:8000;", f"server 127.0.0.1:{web};").replace("/tmp/", f"{tmp_path}/")
    (tmp_path / "nginx.conf").write_text(changed)
    (tmp_path / "server/plain.conf").write_text(server.replace("listen 8080;", f"listen 127.0.0.1:{port};"))
    process = subprocess.Popen(
        [NGINX, "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-g", "daemon off;"],
        stdout=(tmp_path / "nginx.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    try:
        eventually(
            lambda: answers_within(port) is not None, lambda: (tmp_path / "nginx.log").read_text()[-2000:]
        )
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(params=["web", "front"])
def listening(request):
    """With and without nginx."""
    return request.getfixturevalue(request.param)


def answers_within(port, *, patience=10.0):
    """The seconds that /livez takes, or None without a response."""
    began = time.monotonic()
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        link.request("GET", "/livez")
        answer = link.getresponse()
        answer.read()
        return time.monotonic() - began if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        link.close()


def wait_for(port, log):
    eventually(lambda: answers_within(port) is not None, lambda: log.read_text()[-2000:])


def connected(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


@contextlib.contextmanager
def many(port, sent, *, number=MANY):
    """Connections that have sent this and wait."""
    with contextlib.ExitStack() as open_until:
        for _ in range(number):
            link = open_until.enter_context(connected(port))
            if sent:
                link.sendall(sent)
        yield


@pytest.mark.parametrize("sent", HALVES.values(), ids=HALVES.keys())
def test_with_a_hundred_half_open_sockets_livez_answers_within_a_second(listening, sent):
    with many(listening, sent):
        slowest = [answers_within(listening) for _ in range(5)]
    assert None not in slowest
    assert max(slowest) < 1, slowest


def test_a_request_that_comes_byte_by_byte_is_answered(web):
    with connected(web) as link:
        for byte in b"\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n":
            link.sendall(bytes([byte]))
        assert link.recv(100).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_all_answered(web):
    one = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connected(web) as link:
        link.sendall(one + one + last[:20])
        link.sendall(last[20:])
        received = read_all(link)
    assert received.count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (GET + b"X-Long: " + b"x" * connection.LARGEST_HEAD, "headers-too-large"),
        (b"GET /" + b"x" * connection.LARGEST_HEAD, "uri-too-long"),
        (POST + b"Content-Length: 99999999\r\n\r\n", "body-too-large"),
        (POST + CHUNKED + b"ffffff\r\n", "body-too-large"),
        (POST + CHUNKED + b"f" * 8000 + b"\r\n", "body-too-large"),
        (POST + CHUNKED + b"0\r\nX: " + b"x" * connection.LARGEST_HEAD, "headers-too-large"),
        (POST + CHUNKED + b"nothing\r\n", "malformed-request"),
        (POST + CHUNKED + b"1" * 9000, "malformed-request"),
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "malformed-request"),
        (POST + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\n", "malformed-request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "malformed-request"),
        (b"nonsense\r\n\r\n", "malformed-request"),
        (b"GET /livez HTTP/1.1\r\n\r\n", "malformed-request"),
    ],
    ids=[
        "headers", "line", "length", "chunk", "longest chunk", "trailers", "no chunk", "no size",
        "two framings", "two lengths", "HTTP/2", "nonsense", "no host",
    ],
)  # fmt: skip
def test_too_large_and_invalid_requests_are_refused_at_once_with_a_problem(web, sent, code):
    with connected(web) as link:
        link.sendall(sent)
        head, _, body = read_all(link).partition(b"\r\n\r\n")
    assert b"Content-Type: application/problem+json" in head, head
    assert json.loads(body)["code"] == code
    assert json.loads(body)["status"] == int(head.split()[1])


@pytest.mark.parametrize("size", [b"-6", b"-5", b"-0", b"+1", b"0x1", b"1_0", b" 1", b"\xd9\xa3", b"", b";"])
def test_no_size_of_a_chunk_keeps_the_server_busy(web, size):
    with many(web, POST + CHUNKED + size + b"\r\n", number=10):  # some for each process
        slowest = [answers_within(web) for _ in range(5)]
    assert None not in slowest
    assert max(slowest) < 1, slowest


@pytest.mark.slow
def test_requests_that_take_too_long_to_come_end_with_a_problem(web):
    """A connection without any data ends without a response."""
    with connected(web) as silent, connected(web) as slow:
        for link in (silent, slow):
            link.settimeout(connection.HEAD_WITHIN + 10)
        slow.sendall(GET)
        assert b'"code": "request-timeout"' in read_all(slow)
        assert read_all(silent) == b""


def test_the_largest_of_the_requests_that_fill_the_memory_ends_and_no_other(web):
    full = b" " * 3_100_000
    with contextlib.ExitStack() as open_until:
        large = [
            open_until.enter_context(connected(web))
            for _ in range(2 * worker.MOST_BUFFERED // len(full) + 4)  # of each process
        ]
        for link in large:
            with contextlib.suppress(OSError):  # a connection that has ended
                link.sendall(POST + b"Content-Length: 3145728\r\n\r\n" + full)
        with connected(web) as other:
            for part in (GET, b"\r\n"):
                other.sendall(part)
                time.sleep(0.1)  # so that pieces arrive separately
            assert other.recv(100).startswith(b"HTTP/1.1 200 ")
        for link in large:
            link.settimeout(0.1)
        assert any(b'"code": "unavailable"' in read_all(link) for link in large)


LONG_FILE = "/static/admin/js/vendor/jquery/jquery.js"
"""A public page that is larger than socket buffers."""


@contextlib.contextmanager
def many_that_do_not_read(port, request):
    """Connections that have requested this, and do not read the responses."""
    with contextlib.ExitStack() as open_until:
        for _ in range(MANY):
            link = open_until.enter_context(socket.socket())
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the system's minimum
            link.settimeout(10)
            link.connect(("127.0.0.1", port))
            with contextlib.suppress(TimeoutError):
                link.sendall(request)
        yield


@pytest.mark.parametrize(
    "request_bytes",
    [
        f"GET {LONG_FILE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
        f"GET {LONG_FILE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 20,
    ],
    ids=["a long answer", "long answers, one after the other"],
)
def test_with_a_hundred_clients_that_do_not_read_livez_answers_within_a_second(listening, request_bytes):
    with many_that_do_not_read(listening, request_bytes):
        slowest = [answers_within(listening) for _ in range(5)]
    assert None not in slowest
    assert max(slowest) < 1, slowest


def test_a_long_response_reaches_a_slow_client_completely(web):
    link = http.client.HTTPConnection("127.0.0.1", web, timeout=10)
    link.request("GET", LONG_FILE)
    whole = link.getresponse().read()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        slow.settimeout(10)
        slow.connect(("127.0.0.1", web))
        slow.sendall(f"GET {LONG_FILE} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        time.sleep(1)  # the response waits
        answer = read_all(slow)
    assert answer.partition(b"\r\n\r\n")[2] == whole
    assert len(whole) > 200_000


def test_bodies_in_pieces_reach_the_application_whole(web):
    head = POST + b"Content-Type: application/json\r\n"
    pieces = {
        "length": [head + b"Content-Length: 4\r\n\r\n", b"{", b"}", b"  "],
        "chunks": [
            head + b"Transfer-Encoding: chunked\r\n\r\n",
            b"1\r\n{\r\n",
            b"3\r\n}  \r",
            b"\n0\r\n",
            b"\r\n",
        ],
        "expected": [head + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", b"{", b"}"],
    }
    for framing, parts in pieces.items():
        with connected(web) as link:
            for part in parts:
                link.sendall(part)
                time.sleep(0.02)  # so that pieces arrive separately
            received = link.recv(4096)
            while received.startswith(b"HTTP/1.1 100 "):
                received = received.partition(b"\r\n\r\n")[2] or link.recv(4096)
            assert received.startswith(b"HTTP/1.1 401 "), (framing, received)


def read_all(link):
    received = b""
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        while part := link.recv(4096):
            received += part
    return received
