"""
Problem documents, as the API's clients expect them, for requests that the web server refuses before Django.

Examples are a URL or header that is too long, a malformed request, and one that is never completed. Gunicorn
logs its refusals; only its response, which would be HTML, is replaced. A document contains nothing of the
request.
"""

from __future__ import annotations

import functools
import http
import json
import uuid
from typing import Any

CODES = {
    400: "malformed-request",
    403: "forbidden",
    414: "uri-too-long",
    417: "expectation-failed",
    431: "headers-too-large",
    501: "unsupported-transfer-coding",
}
"""By the status that Gunicorn chose; every other status is an error on our side."""


def answer_with_problems(worker: Any) -> None:
    """Make this Gunicorn worker, of any class, respond with problem documents."""
    worker.handle_error = functools.partial(_answer, worker)


def _answer(worker: Any, request: Any, client: Any, address: Any, error: BaseException) -> None:
    written = _Written()
    type(worker).handle_error(worker, request, written, address, error)
    try:
        client.sendall(response(CODES.get(written.status(), "internal-error")))
    except OSError as failure:
        worker.log.debug("Failed to send error message: %s", failure)


class _Written:
    """Replaces the connection, to record Gunicorn's response."""

    def __init__(self) -> None:
        self.data = b""

    def gettimeout(self) -> float:
        """Gunicorn would change the timeout of a blocking connection."""
        return 0.0

    def sendall(self, data: bytes) -> None:
        self.data += data

    def status(self) -> int:
        return int(self.data.split(maxsplit=2)[1])


RETRY_AFTER = {"unavailable": 1}
"""Seconds, for problems that disappear by themselves."""


def response(code: str, detail: str = "") -> bytes:
    """Return the complete response. The connection ends with it: the start of the next request is unknown."""
    from orders.api import problems  # Django's settings exist once the worker has loaded the project

    request_id = str(uuid.uuid4())
    problem = problems.Problem(code, detail, retry_after=RETRY_AFTER.get(code))
    status = problems.CATALOGUE[code].status
    body = json.dumps(problems.document(problem, instance="/", request_id=request_id)).encode()
    headers = {
        "Connection": "close",
        "Content-Type": problems.CONTENT_TYPE,
        "Content-Length": str(len(body)),
        "X-Content-Type-Options": "nosniff",
        "X-Request-ID": request_id,
        **problem.headers,
    }
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", *map(": ".join, headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
