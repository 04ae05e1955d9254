"""The client, against a real HTTP server that fails on request."""

import http.server
import json
import threading
import time

import pytest

from orderflow.chaos.load import client
from orderflow.chaos.load.client import Client
from orderflow.chaos.load.planned_orders import PlannedOrder

SILENCE, HANG_UP = "silence", "hang up"


class Shop(http.server.ThreadingHTTPServer):
    """Responds with each of `answers` in turn, then accepts every order; records the requests."""

    daemon_threads = True

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            shop = self.server
            with shop.lock:
                shop.requests.append((time.monotonic(), self.path, self.headers["Idempotency-Key"], body))
                answer = shop.answers.pop(0) if shop.answers else (202 if "cancel" in self.path else 201)
            if answer == SILENCE:
                time.sleep(1.0)
                self.close_connection = True
            elif answer == HANG_UP:
                self.close_connection = True
            else:
                body_text = json.dumps(
                    {"id": f"id of {self.headers['Idempotency-Key']}", "number": "OF-1"}
                ).encode()
                self.send_response(answer)
                self.send_header("Content-Length", str(len(body_text)))
                self.end_headers()
                self.wfile.write(body_text)

        def log_message(self, *_):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.lock, self.requests, self.answers = threading.Lock(), [], []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def keys(self):
        return [key for _, path, key, _ in self.requests if path == "/api/v1/orders"]


@pytest.fixture
def shop(monkeypatch):
    monkeypatch.setattr(client, "PAUSES", (0.01,))
    with Shop() as server:
        yield server
        server.shutdown()


@pytest.fixture
def customer(shop):
    return Client(f"http://127.0.0.1:{shop.server_address[1]}/api/v1", "token", timeout=0.5)


def planned(number=1, **more):
    return PlannedOrder(number=number, kind="good", key=f"key-{number}", body={"number": number}, **more)


def later(seconds=10.0):
    return time.time() + seconds


@pytest.mark.parametrize("trouble", [503, 500, 429, 409, SILENCE, HANG_UP])
def test_a_request_without_a_response_is_repeated_with_its_key(shop, customer, trouble):
    shop.answers = [trouble, trouble]
    placed = customer.place(planned(), until=later())
    assert placed.order_id == "id of key-1"
    assert shop.keys == ["key-1"] * 3
    assert len({body for *_, body in shop.requests}) == 1
    assert [one.status for one in placed.tries][-1] == 201
    assert len(placed.tries) == 3


def test_a_refusal_is_a_final_response(shop, customer):
    shop.answers = [422]
    placed = customer.place(planned(), until=later())
    assert placed.refused.startswith("422: ")
    assert placed.is_answered
    assert not placed.is_accepted
    assert len(shop.keys) == 1


def test_an_order_without_a_response_is_repeated_until_the_end_and_not_counted_as_accepted(shop, customer):
    shop.answers = [503] * 1000
    placed = customer.place(planned(), until=later(0.3))
    assert not placed.is_answered
    assert len(placed.tries) > 3


def test_a_cancellation_follows_the_response_and_is_repeated_too(shop, customer):
    shop.answers = [201, 503, 202]
    placed = customer.place(planned(cancel_after=0.0), until=later())
    assert placed.cancellation == 202
    assert [path for _, path, *_ in shop.requests][1:] == [
        "/api/v1/orders/id of key-1/cancel".replace(" ", "%20")
    ] * 2


def test_a_refused_cancellation_is_a_final_response(shop, customer):
    shop.answers = [201, 409]
    assert customer.place(planned(cancel_after=0.0), until=later()).cancellation == 409


def test_orders_are_placed_at_a_steady_rate_despite_slow_responses(shop, customer):
    shop.answers = [SILENCE] * 3
    placed = customer.place_all([planned(number) for number in range(20)], rate=50, until=later())
    assert [one.planned.number for one in placed] == list(range(20))
    first = [one.tries[0].at for one in placed]
    assert 0.3 < max(first) - min(first) < 0.9
    assert sorted(set(shop.keys)) == sorted(f"key-{number}" for number in range(20))
