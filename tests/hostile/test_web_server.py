"""Requests that a real Gunicorn refuses, or parses, before the project's code receives them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import uuid

import pytest

from orderflow.stack import ports
from orders.models import Order
from tests.factories import ProductFactory
from tests.orders.api.client import ORDERS, ApiClient, clear_limits, order_of
from tests.processes import ROOT, environment, eventually

BODY = json.dumps(order_of()).encode()


class Server:
    """Gunicorn with the test's database, and a client that sends bytes."""

    def __init__(self, log) -> None:
        self.port = ports.choose()
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [
                    sys.executable, "-m", "gunicorn", "orderflow.wsgi", f"--bind=127.0.0.1:{self.port}",
                    "--threads=4", "--no-control-socket",
                ],
                cwd=ROOT,
                env=environment() | {"ALLOWED_HOSTS": "127.0.0.1", "API_RATE_LIMIT": "100000/minute"},
                stdout=output,
                stderr=output,
            )  # fmt: skip
        eventually(self._answers, lambda: log.read_text()[-2000:])

    def _answers(self) -> bool:
        assert self._popen.poll() is None, self.log.read_text()[-2000:]
        try:
            return self.send(b"GET /livez HTTP/1.1")[0] == 200
        except OSError:
            return False

    def end(self) -> None:
        self._popen.terminate()
        self._popen.wait(30)

    def send(self, line: bytes, *headers: bytes, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """Send these bytes as a request; return the status, headers and body of the response."""
        given = [line, b"Host: 127.0.0.1", b"Connection: close", *headers]
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(b"\r\n".join(given) + b"\r\n\r\n" + body)
            answer = b""
            while received := connection.recv(65536):
                answer += received
        head, _, rest = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        return int(first.split()[1]), {n.lower(): v for n, _, v in (x.partition(": ") for x in lines)}, rest

    def problem(self, line: bytes, *headers: bytes, body: bytes = b"") -> str:
        """Send such a request; return the code of the problem in the response."""
        status, answered, document = self.send(line, *headers, body=body)
        assert answered["content-type"] == "application/problem+json", document
        if answered.get("transfer-encoding") == "chunked":
            document = document[document.index(b"{") : document.rindex(b"}") + 1]
        problem = json.loads(document)
        assert problem["status"] == status
        assert problem["request_id"] == answered["x-request-id"]
        return problem["code"]


@pytest.fixture(scope="module")
def server(django_db_setup, django_db_blocker, tmp_path_factory):
    with django_db_blocker.unblock():
        server = Server(tmp_path_factory.mktemp("web") / "gunicorn.log")
    yield server
    server.end()


@pytest.fixture
def shop(transactional_db):
    clear_limits()
    ProductFactory(sku="MUG-01")
    return ApiClient()


def authorized(shop, *headers: bytes) -> list[bytes]:
    return [b"Authorization: Bearer " + shop.secret.encode(), JSON_TYPE, *headers]


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


def key() -> bytes:
    return b"Idempotency-Key: " + str(uuid.uuid4()).encode()


POST = f"POST {ORDERS} HTTP/1.1".encode()
JSON_TYPE = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("code", "line", "headers"),
    [
        ("uri-too-long", b"GET /api/v1/orders?email=" + b"x" * 5_000 + b" HTTP/1.1", []),
        ("uri-too-long", b"GET /api/v1/orders?email=" + b"x" * 500_000 + b" HTTP/1.1", []),
        ("uri-too-long", b"GET /" + b"x" * 5_000 + b" HTTP/1.1", []),
        ("headers-too-large", b"GET /api/v1/orders HTTP/1.1", [b"Cookie: " + b"x" * 9_000]),
        ("headers-too-large", b"GET /api/v1/orders HTTP/1.1", [b"X-%d: 1" % number for number in range(200)]),
        ("malformed-request", b"\x16\x03\x01", []),
        ("malformed-request", b"GET /api/v1/orders", []),
        ("malformed-request", b"GET /api/v1/orders HTTP/9.9", []),
        ("malformed-request", b"GET /api/v1/\xff HTTP/1.1", []),
        ("malformed-request", b"GET /api/v1/orders/%00 HTTP/1.1", []),
        ("malformed-request", b"get /api/v1/orders HTTP/1.1", []),
        ("malformed-request", b"GET /api/v1/orders HTTP/1.1", [b"X\x00: 1"]),
        ("malformed-request", b"GET /api/v1/orders HTTP/1.1", [b"X: \x00"]),
        ("malformed-request", b"GET /api/v1/orders HTTP/1.1", [b"Host: other"]),
        ("malformed-request", b"GET /api/v1/orders HTTP/1.1", [b"X: 1", b" folded"]),
        ("malformed-request", b"GET http://other/api/v1/orders HTTP/1.1", []),
        ("malformed-request", b"GET http://other@127.0.0.1/api/v1/orders HTTP/1.1", []),
        ("malformed-request", b"GET ftp://127.0.0.1/api/v1/orders HTTP/1.1", []),
        ("malformed-request", b"GET /api/v1/orders#a HTTP/1.1", []),
        ("not-found", b"GET /api/v1/orders%0D%0AX:1 HTTP/1.1", []),
        ("malformed-request", b"GET\t/api/v1/orders HTTP/1.1", []),
        ("malformed-request", b"GET /api/v1/orders?\xc3\xa9 HTTP/1.1", []),
        ("malformed-request", b"GET /api/v1/orders HTTP/1.1", [b"Host: 127.0.0.1"]),
        ("malformed-request", b"GET /api/v1/orders HTTP/1.1", [b"X : 1"]),
        ("malformed-request", b"GET /api/v1/orders HTTP/1.1", [b": 1"]),
        ("malformed-request", b"GET /api/v1/orders HTTP/1.1", [b"no colon"]),
        ("malformed-request", b"GET /api/v1/orders HTTP/1.1", [b"X: a\rY: b"]),
        ("malformed-request", b"GET /api/v1/orders HTTP/1.1", [b"X: a\nY: b"]),
        ("malformed-request", POST, [b"Content-Length: 1", b"Content-Length: 1"]),
        ("malformed-request", POST, [b"Content-Length: 1,1"]),
        ("malformed-request", POST, [b"Content-Length: +1"]),
        ("malformed-request", POST, [b"Content-Length: "]),
        ("malformed-request", POST, [b"Content-Length: \xd9\xa3"]),
        ("malformed-request", POST, [b"Transfer-Encoding : chunked"]),
        ("malformed-request", POST, [b"Transfer-Encoding:\x0bchunked"]),
        ("malformed-request", POST, [CHUNKED, CHUNKED]),
        ("malformed-request", POST, [CHUNKED, b"Transfer-Encoding: identity"]),
        ("malformed-request", POST.replace(b"1.1", b"1.0"), [CHUNKED]),
        ("unsupported-transfer-coding", POST, [b'Transfer-Encoding: "chunked"']),
        ("unsupported-transfer-coding", POST, [b"Transfer-Encoding: "]),
        ("expectation-failed", POST, [b"Expect: 100-continue, x"]),
        ("unauthenticated", b"GET http://127.0.0.1/api/v1/orders HTTP/1.1", []),
        ("unauthenticated", b"GET /api/v1/orders?next=http://other/ HTTP/1.1", []),
        ("unauthenticated", b"GET /api/v1/orders HTTP/1.1", [b"Authorization: Bearer \xff"]),
        ("malformed-request", POST, [b"Content-Length: 1", b"Content-Length: 2"]),
        ("malformed-request", POST, [b"Content-Length: 1", CHUNKED]),
        ("malformed-request", POST, [b"Content-Length: -1"]),
        ("malformed-request", POST, [b"Content-Length: " + b"9" * 5_000]),
        ("malformed-request", POST, [b"Transfer-Encoding: gzip"]),
        ("malformed-request", POST, [b"Transfer-Encoding: chunked, chunked"]),
        ("unsupported-transfer-coding", POST, [b"Transfer-Encoding: x, chunked"]),
        ("unsupported-transfer-coding", POST, [b"Transfer-Encoding: gzip, chunked"]),
        ("expectation-failed", POST, [b"Expect: a-miracle"]),
        ("unauthenticated", b"GET /api/v1/orders HTTP/1.1", [b"SCRIPT_NAME: /elsewhere"]),
        ("unsupported-media-type", POST, [b"Content-Type: a/b; x*=nothing''y", b"Content-Length: 1"]),
        ("unsupported-media-type", POST, [JSON_TYPE + b"; charset=hex", b"Content-Length: 1"]),
    ],
)  # fmt: skip
def test_refusals_of_the_server_are_problem_documents(server, code, line, headers):
    assert server.problem(line, *headers, body=b"x") == code


@pytest.mark.parametrize(
    "kind", [b"a/b; charset=hex", b"a/b; charset=idna", b"a/b; x*=nothing''y", b";" * 2_000]
)
def test_no_content_type_fails_a_page(server, shop, kind):
    status, _, _ = server.send(b"GET /admin/login/?next=%FF HTTP/1.1", b"Content-Type: " + kind)

    assert status == 200


@pytest.mark.slow
def test_a_cookie_that_the_database_cannot_hold_fails_no_page(server, shop):
    cookie = rb'Cookie: sessionid="\000aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"'

    assert server.send(b"GET /admin/ HTTP/1.1", cookie)[0] == 400


@pytest.mark.parametrize("parts", [1, 7])
def test_a_body_in_chunks_is_read_whole(server, shop, parts):
    size = -(-len(BODY) // parts)
    body = chunked(*(BODY[start : start + size] for start in range(0, len(BODY), size)))
    status, _, answer = server.send(POST, *authorized(shop, key(), CHUNKED), body=body)

    assert status == 201, answer
    assert Order.objects.get().lines.get().quantity == 2


def test_a_chunked_body_gets_the_same_response_under_the_same_key(server, shop):
    headers = authorized(shop, b"Idempotency-Key: once")
    _, _, first = server.send(POST, *headers, b"Content-Length: %d" % len(BODY), body=BODY)
    status, answered, again = server.send(POST, *headers, CHUNKED, body=chunked(BODY))

    assert (status, answered["idempotent-replayed"], again) == (201, "true", first)
    assert Order.objects.count() == 1


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("body-too-large", chunked(*[b" " * 8_192] * 9)),
        ("malformed-request", chunked(BODY, end=b"zz\r\n")),
        ("malformed-request", b"-1\r\n" + BODY),
        ("malformed-request", b"%x\r\n%sXX0\r\n\r\n" % (len(BODY), BODY)),
        ("malformed-request", chunked(BODY[:-1])),
        ("malformed-request", chunked(BODY, end=b"0\r\nContent-Length: 1\r\n\r\n")),
    ],
)
def test_chunks_that_are_too_many_or_broken_place_no_order(server, shop, code, body):
    assert server.problem(POST, *authorized(shop, key(), CHUNKED), body=body) == code
    assert not Order.objects.exists()


def test_a_key_that_is_sent_twice_is_refused(server, shop):
    length = b"Content-Length: %d" % len(BODY)
    once = b"Idempotency-Key: once"
    for headers in ([once, once], [once, b"Idempotency-Key: twice"], [once, b"Idempotency-Key: "]):
        code = server.problem(POST, *authorized(shop, *headers, length), body=BODY)
        assert code == "idempotency-key-malformed"

    assert not Order.objects.exists()


def test_the_server_still_responds(server, shop):
    """The refused requests ended no worker, and none was logged as an error of the project."""
    status, _, _ = server.send(b"GET /api/v1/orders HTTP/1.1", *authorized(shop))
    log = server.log.read_text()

    assert status == 200
    assert "Traceback" not in log
    assert log.count("Booting worker") == 1
