"""
A well-behaved client: one idempotency key per order, repeated until there is a response, at a steady rate.

It repeats an order until the API has responded. `assessment.promises` checks the system against these
responses.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Iterable
from typing import Any

import requests

from orderflow.chaos.load.planned_orders import PlannedOrder

TIMEOUT = 5.0
"""Seconds a client waits for a response."""

PAUSES = (0.2, 0.4, 0.8, 1.6, 2.0)
"""Seconds between two requests for the same order; the last value repeats."""

AT_ONCE = 24
"""Maximum number of requests in flight: more than the rate needs while responses take their full timeout."""

TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses that leave the outcome open: 409 means that the same request is still being processed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Try:
    """One request: when it was sent (Unix time), how long its response took, and the status."""

    at: float
    seconds: float
    status: int = 0
    """0: there was no response."""
    error: str = ""


@dataclasses.dataclass(kw_only=True)
class Placed:
    """The outcome of one planned order, as its client knows it."""

    planned: PlannedOrder
    tries: list[Try] = dataclasses.field(default_factory=list)
    order_id: str = ""
    order_number: str = ""
    refused: str = ""
    cancellation: int = 0
    """The status of the response to its cancellation; 0: not requested, or no response."""

    @property
    def is_accepted(self) -> bool:
        return bool(self.order_id)

    @property
    def is_answered(self) -> bool:
        return bool(self.order_id or self.refused)


class Client:
    """Places orders at `url` (of the API, including its version) with one bearer token."""

    def __init__(self, url: str, token: str, *, timeout: float = TIMEOUT) -> None:
        self._url, self._token, self._timeout = url.rstrip("/"), token, timeout
        self._local = threading.local()

    def place(self, planned: PlannedOrder, *, until: float) -> Placed:
        """Place one order; repeat the request with its key until there is a response, or until a Unix time."""
        placed = Placed(planned=planned)
        while not placed.is_answered and (not placed.tries or time.time() < until):
            if placed.tries:
                time.sleep(_pause(len(placed.tries)))
            self._try(placed)
        if placed.is_accepted and planned.cancel_after is not None:
            time.sleep(planned.cancel_after)
            placed.cancellation = self._cancel(placed.order_id, until=until)
        return placed

    def place_all(self, planned_orders: Iterable[PlannedOrder], *, rate: float, until: float) -> list[Placed]:
        """
        Place all orders at `rate` per second, however long the responses take; return their outcomes.
        """
        waiting: queue.SimpleQueue[PlannedOrder | None] = queue.SimpleQueue()
        done: list[Placed] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                while (planned := waiting.get()) is not None:
                    done.append(self.place(planned, until=until))
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=work, name=f"client-{number}") for number in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        for position, planned in enumerate(planned_orders):
            time.sleep(max(0.0, begun + position / rate - time.monotonic()))
            waiting.put(planned)
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return sorted(done, key=lambda placed: placed.planned.number)

    def _try(self, placed: Placed) -> None:
        at, begun = time.time(), time.monotonic()
        answer = self._post("/orders", key=placed.planned.key, body=placed.planned.body)
        seconds = time.monotonic() - begun
        if isinstance(answer, Exception):
            placed.tries.append(Try(at=at, seconds=seconds, error=f"{type(answer).__name__}: {answer}"[:200]))
            return
        placed.tries.append(Try(at=at, seconds=seconds, status=answer.status_code))
        if answer.status_code == 201:
            order = answer.json()
            placed.order_id, placed.order_number = str(order["id"]), str(order["number"])
        elif answer.status_code not in TRY_AGAIN:
            placed.refused = f"{answer.status_code}: {answer.text[:300]}"

    def _cancel(self, order_id: str, *, until: float) -> int:
        tries = 0
        while not tries or time.time() < until:
            if tries:
                time.sleep(_pause(tries))
            tries += 1
            answer = self._post(f"/orders/{order_id}/cancel")
            # Here 409 is a final response: the order can no longer be cancelled.
            if not isinstance(answer, Exception) and answer.status_code not in TRY_AGAIN - {409}:
                return answer.status_code
        return 0

    def _post(
        self, path: str, *, key: str = "", body: dict[str, Any] | None = None
    ) -> requests.Response | Exception:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            # A connection that the server is about to close would look like an error of the API.
            "Connection": "close",
        }
        if key:
            headers["Idempotency-Key"] = key
        try:
            return self._session().post(
                f"{self._url}{path}", json=body or {}, headers=headers, timeout=self._timeout
            )
        except requests.RequestException as failure:
            return failure

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.trust_env = False  # no proxy from the environment
        session: requests.Session = self._local.session
        return session


def _pause(tries: int) -> float:
    return PAUSES[min(tries, len(PAUSES)) - 1]
