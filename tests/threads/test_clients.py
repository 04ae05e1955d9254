"""Clients of providers are shared by all threads of a worker: each call has its own connection and response."""

from __future__ import annotations

import http.server
import threading

import pytest
import requests

from notifications.channels import sms
from outbox.http import bounded
from tests.threads import switches

THREADS, CALLS = 32, 8


class _Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the path of the request, once all threads have sent theirs."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self):
        super().setup()
        self.server.connections.append(self.client_address)

    def do_GET(self):
        self.server.all_have_sent.wait(30)
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Counts the connections that clients open."""

    daemon_threads = True
    request_queue_size = 2 * THREADS

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Echo)
        self.connections = []
        self.all_have_sent = threading.Barrier(THREADS)
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_each_call_in_flight_has_a_connection_that_is_kept(server):
    session = bounded.bound(requests.Session(), seconds=30)
    all_are_idle = threading.Barrier(THREADS)

    def calls():
        for _ in range(CALLS):
            session.get(server.url, timeout=30)
            all_are_idle.wait(30)

    switches.run(*[calls] * THREADS)

    assert len(server.connections) == THREADS


def test_each_thread_gets_the_response_to_its_own_text_message(server, monkeypatch):
    client = sms._HttpClient(base=server.url, timeout=30)
    all_have_received = threading.Barrier(THREADS)
    monkeypatch.setattr(client, "log_response", lambda *_: all_have_received.wait(30))
    mixed = []

    def calls(thread):
        for call in range(CALLS):
            path = f"/{thread}/{call}"
            if client.request("GET", f"{sms.TWILIO}{path}").text != path:
                mixed.append(path)

    switches.run(*[lambda thread=thread: calls(thread) for thread in range(THREADS)])

    assert mixed == []


def test_the_last_response_of_one_thread_is_not_that_of_another():
    client = sms._HttpClient(base="http://unused.invalid", timeout=1)
    client._test_only_last_response = "mine"

    theirs = []
    switches.run(lambda: theirs.append(client._test_only_last_response))

    assert (client._test_only_last_response, theirs) == ("mine", [None])
