"""A receiver of traces, and a whole stack whose processes send theirs to it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from orderflow.stack import ports
from orders.clients import tokens
from orders.models import Order
from tests import processes, rabbitmq_hosts
from tests.factories import ProductFactory
from tests.orders.api.client import ORDERS, clear_limits, order_of
from tests.outbox.conftest import subscribed as subscribed
from tests.processes import ROOT, RedisServer, environment, eventually
from tests.traces import receiver, tree
from tests.traces.receiver import Received, Receiver

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
"""Milliseconds between two exports of a process."""


def exporting(to: Receiver, protocol: str = "http/protobuf") -> dict[str, str]:
    """Return the environment of a process that sends its traces to a receiver."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{to.port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        **SOON,
    }


class Web:
    """Gunicorn with the test's database, and a client with a token."""

    def __init__(self, log: Any, **extra: str) -> None:
        self.port = ports.choose()
        self.log = log
        words = ["gunicorn", "orderflow.wsgi", f"--bind=127.0.0.1:{self.port}", "--threads=4"]
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", *words, "--no-control-socket"],
                cwd=ROOT,
                env=environment() | {"ALLOWED_HOSTS": "127.0.0.1"} | extra,
                stdout=output,
                stderr=output,
            )
        _, self._secret = tokens.create(f"shop-{uuid.uuid4().hex[:8]}", scopes=tokens.ORDINARY, client="")
        eventually(self._answers, lambda: log.read_text()[-2000:])

    def _answers(self) -> bool:
        assert self._popen.poll() is None, self.log.read_text()[-2000:]
        with contextlib.suppress(OSError):
            return self.get("/livez") == 200
        return False

    def get(self, path: str) -> int:
        """Return the status of a page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return int(answer.status)

    def place(self, body: dict[str, Any] | None = None, **headers: str) -> Order:
        """Place an order as a client of the API does."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{ORDERS}",
            json.dumps(body or order_of()).encode(),
            {
                "Authorization": f"Bearer {self._secret}",
                "Content-Type": "application/json",
                "Idempotency-Key": str(uuid.uuid4()),
                **headers,
            },
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return Order.objects.get(pk=json.load(answer)["id"])

    def stop(self) -> None:
        self._popen.terminate()
        self._popen.wait(30)


class TracedStack:
    """Web server, relay, beat and workers that send their traces to `receiver`."""

    def __init__(self, stack: processes.Stack, folder: Any, to: Receiver, **extra: str) -> None:
        self.receiver, self._extra, self._stack, self._folder = to, extra, stack, folder
        self.web: Web | None = None

    def start(self, *, pool: str, concurrency: int = 2, **extra: str) -> None:
        """Start everything; `orders` and `others` (notifications) are the workers."""
        extra = self._extra | extra
        self.orders = self._stack.worker("orders", "orders", pool=pool, concurrency=concurrency, **extra)
        self.others = self._stack.worker(
            "email", "email", "sms", "push", pool=pool, concurrency=concurrency, **extra
        )
        self.relay = self._stack.relay(**extra)
        self.beat = self._stack.beat(**extra)
        self.web = Web(self._folder / "web.log", **extra)
        for each in (self.orders, self.others, self.relay):
            each.wait_until_ready()

    def place(self, body: dict[str, Any] | None = None, **headers: str) -> Order:
        assert self.web
        return self.web.place(body, **headers)

    def trace_of(self, order: Order, *names: str) -> list[Received]:
        """Wait until the trace of an order has spans with these names, and as often; return it."""
        wanted = Counter(names)

        def found() -> list[Received]:
            own = [s for s in self.receiver.spans if str(order.pk) in s.attributes.values()]
            spans = self.receiver.trace(own[0].trace) if own else []
            return spans if Counter(s.name for s in spans) >= wanted else []

        def explanation() -> str:
            return "\n\n".join(tree.outline(spans) for spans in self.receiver.traces().values())

        return eventually(found, explanation, within=40)

    def stop(self) -> None:
        if self.web:
            self.web.stop()


@pytest.fixture
def shop(transactional_db, world):
    clear_limits()
    return ProductFactory(sku="MUG-01")


@pytest.fixture
def receive() -> Iterator[Receiver]:
    """A receiver over HTTP."""
    with receiver.over_http() as found:
        yield found


@pytest.fixture
def broker_url(request, tmp_path) -> Iterator[str]:
    """An empty broker, of the kind that the test is parametrized with; Redis by default."""
    if getattr(request, "param", "redis") == "redis":
        server = RedisServer(tmp_path, durable=False)
        yield server.url
        server.kill()
        return
    url = rabbitmq_hosts.url()
    if not rabbitmq_hosts.answers(url):
        pytest.skip(f"no RabbitMQ answers at {url}")
    yield url


@pytest.fixture
def traced(request, shop, receive, broker_url, tmp_path) -> Iterator[TracedStack]:
    """A stack to be started, whose traces arrive at `receive`."""
    with processes.stack(tmp_path) as started:
        made = TracedStack(started, tmp_path, receive, BROKER_URL=broker_url, **exporting(receive))
        yield made
        made.stop()
