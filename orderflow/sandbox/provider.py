"""The base of every simulated provider: a table of routes, a format for failures, and a ledger."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

from .ledger import Ledger
from .messages import Answer, Refusal, Request, json_answer

Handle = Callable[[Request], Answer]
Route = tuple[str, re.Pattern[str], Handle]


def route(method: str, path: str, handle: Handle) -> Route:
    """Route a method and a path such as `/shipments/{id}`."""
    return method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), handle


class Provider:
    """Base class of the simulated providers."""

    name: ClassVar[str]
    for_people: ClassVar[bool] = False
    """Whether its own pages require the run's password too, not only the control API."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.routes: list[Route] = []

    def answer(self, request: Request) -> Answer:
        try:
            return self._handle_of(request)(request)
        except Refusal as refusal:
            return refusal.answer()

    def failure(self, status: int, message: str) -> Answer:
        """Return an error response in this provider's format."""
        return json_answer(status, {"error": message})

    def key_of(self, request: Request) -> str | None:
        return request.headers.get("Idempotency-Key")

    def _handle_of(self, request: Request) -> Handle:
        allowed = []
        for method, pattern, handle in self.routes:
            found = pattern.fullmatch(request.path)
            if found and method == request.method:
                request.path_values = found.groupdict()
                return handle
            if found:
                allowed.append(method)
        if allowed:
            answer = self.failure(405, f"{request.method} is not possible here.")
            answer.headers["Allow"] = ", ".join(sorted(allowed))
        else:
            answer = self.failure(404, f"There is nothing at {request.method} {request.path}.")
        return lambda _: answer
