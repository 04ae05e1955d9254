"""
What Prometheus and Alertmanager do: which alerts fire, and what a receiver is told.

The receiver is a real one: an HTTP server that Alertmanager's webhooks call.
"""

from __future__ import annotations

import dataclasses
import http.server
import json
import threading
import time
from typing import Any

import requests

LOOPBACK = "127.0.0.1"
POLL = 0.25
"""Seconds between two queries: the precision of the times on the page."""

TIMEOUT = 5.0
NOT_IDENTIFYING = ("alertname", "severity", "instance", "job")


@dataclasses.dataclass(frozen=True, order=True)
class Fired:
    """One alert with the labels that tell it from others of its name."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, labels: dict[str, str]) -> Fired:
        """Return the alert with these labels."""
        identifying = sorted((name, value) for name, value in labels.items() if name not in NOT_IDENTIFYING)
        return cls(labels["alertname"], tuple(identifying))

    def __str__(self) -> str:
        labels = ", ".join(value for _, value in self.labels)
        return f"{self.name} ({labels})" if labels else self.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """One alert in a message of Alertmanager."""

    at: float
    fired: Fired
    is_resolved: bool
    annotations: dict[str, str]


@dataclasses.dataclass(kw_only=True)
class Span:
    """The time for which an alert fired, as seen by queries. `end` None: it still does."""

    fired: Fired
    begin: float
    end: float | None = None


class Watch:
    """Watches from `start` to `stop`, in threads. `since` has the alerts that fire now."""

    def __init__(self, *, prometheus: str, receiver_port: int) -> None:
        self._prometheus = prometheus
        self.since: dict[Fired, Span] = {}
        self.spans: list[Span] = []
        self.told: list[Told] = []
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._server = http.server.ThreadingHTTPServer((LOOPBACK, receiver_port), _handler(self._receive))
        self._threads = [
            threading.Thread(target=self._poll, name="watch", daemon=True),
            threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True),
        ]
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy from the environment

    def start(self) -> None:
        """Begin to watch."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all threads."""
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """
        Return the instant vector of an expression.

        Raises:
            requests.RequestException: if Prometheus does not answer, or refuses the expression.
        """
        return list(self._get("/api/v1/query", query=expression)["result"])

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        answer = self._session.get(f"{self._prometheus}{path}", params=parameters, timeout=TIMEOUT)
        answer.raise_for_status()
        data: dict[str, Any] = answer.json()["data"]
        return data

    def _poll(self) -> None:
        while not self._stopping.wait(POLL):
            try:
                alerts = self._get("/api/v1/alerts")["alerts"]
            except (requests.RequestException, ValueError) as failure:
                self.failures.append(f"Prometheus does not answer: {failure!r}")
                continue
            firing = {Fired.of(alert["labels"]) for alert in alerts if alert["state"] == "firing"}
            now = time.time()
            for fired in firing - self.since.keys():
                self.since[fired] = Span(fired=fired, begin=now)
                self.spans.append(self.since[fired])
            for fired in self.since.keys() - firing:
                self.since.pop(fired).end = now

    def _receive(self, message: dict[str, Any]) -> None:
        now = time.time()
        self.told += [
            Told(
                at=now,
                fired=Fired.of(alert["labels"]),
                is_resolved=alert["status"] == "resolved",
                annotations=alert["annotations"],
            )
            for alert in message["alerts"]
        ]


def _handler(receive: Any) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        """Takes the messages of Alertmanager."""

        def do_POST(self) -> None:
            receive(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Alertmanager's messages are in the result, not in a log."""

    return Handler
