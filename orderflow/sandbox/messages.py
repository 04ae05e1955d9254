"""HTTP requests and responses of the sandbox, without sockets."""

from __future__ import annotations

import abc
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl


class Refusal(abc.ABC, Exception):
    """
    A provider's error response, as an exception. Each provider derives its own, with its format of errors.
    """

    @abc.abstractmethod
    def answer(self) -> Answer:
        """The response for the client."""


@dataclass(slots=True)
class Request:
    """One request, read completely."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message[str, str]
    body: bytes
    path_values: Mapping[str, str] = field(default_factory=dict)
    # Seconds by which a fault delays this request. See `pause`.
    latency: float = 0.0
    # The status that a fault gives to the object this request creates.
    state: str | None = None

    @property
    def media_type(self) -> str:
        return (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()

    def form(self) -> list[tuple[str, str]]:
        """Decode a form-encoded body."""
        return parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True)

    def json(self) -> Any:
        """
        Decode a JSON body.

        Raises:
            ValueError: if it is not JSON.
        """
        return json.loads(self.body)

    def pause(self) -> None:
        """
        Wait as long as a fault requires, once.

        A handler that holds an idempotency key calls this before acting, so that the request counts as in
        flight meanwhile; otherwise the server calls it before it responds.
        """
        latency, self.latency = self.latency, 0.0
        if latency > 0:
            time.sleep(latency)


@dataclass(slots=True)
class Answer:
    """
    One response. A body in parts is sent as it is produced, so that a long ledger is never in memory at once.
    """

    status: int
    body: bytes | Iterable[bytes] = b""
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(status: int, content: object, headers: Mapping[str, str] | None = None) -> Answer:
    body = json.dumps(content, ensure_ascii=False).encode()
    return Answer(status, body, headers=dict(headers or {}))
