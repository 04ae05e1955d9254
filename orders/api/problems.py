"""
Problems: every error of the API as `application/problem+json` (RFC 9457), and their catalogue.

`docs/problems.md` is written from the catalogue by `manage.py export_openapi`. A problem contains nothing
beyond its detail: no stack trace, no SQL, no value that the client sent.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse

from outbox import context

CONTENT_TYPE = "application/problem+json"
TYPES = "/api/v1/problems/"
"""The documentation of problem types: `/api/v1/problems/<code>`."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One type of problem: what it means, and what the client can do."""

    status: int
    title: str
    meaning: str
    remedy: str


CATALOGUE: dict[str, Kind] = {
    "malformed-request": Kind(
        400,
        "The request cannot be read",
        "The body is not JSON, an object in it has a duplicate name, or the request is otherwise malformed.",
        "Send UTF-8 encoded JSON with `Content-Type: application/json`, without duplicate names.",
    ),
    "idempotency-key-missing": Kind(
        400,
        "The Idempotency-Key header is missing",
        "Placing an order needs a key, so that a repeated request cannot place it twice.",
        "Send a fresh key with every new order, and the same key with every repetition of the request.",
    ),
    "idempotency-key-malformed": Kind(
        400,
        "The Idempotency-Key header is malformed",
        "A key is 1 to 255 visible ASCII characters without spaces, bare or as a quoted string. The header is "
        "sent once: two of them arrive joined by a comma, which a bare key may not have.",
        "A UUID is a good key.",
    ),
    "unauthenticated": Kind(
        401,
        "No valid token",
        "The request carries no bearer token, or one that is unknown, expired or revoked.",
        "Send `Authorization: Bearer <token>`; tokens are created with `manage.py api_token create`.",
    ),
    "missing-scope": Kind(
        403,
        "The token may not do this",
        "The token is valid but lacks the scope that the operation needs.",
        "Use a token with that scope (`orders:read`, `orders:read:all`, `orders:write`, `orders:cancel`).",
    ),
    "address-not-allowed": Kind(
        403,
        "The token may not be used from this address",
        "The token is valid, but only for requests from certain networks, and this one came from another.",
        "Send it from an allowed network, or have the networks changed: `manage.py api_token allow`.",
    ),
    "tls-required": Kind(
        403,
        "The request came over plain HTTP",
        "Nothing was done, and there is no redirect: a token in the request was sent unencrypted and counts as "
        "leaked.",
        "Send requests to `https://`. Have the token rotated (`manage.py api_token rotate`) if one was sent.",
    ),
    "forbidden": Kind(
        403,
        "Not allowed",
        "The request is refused, whoever sends it.",
        "Compare the request with the API's documentation.",
    ),
    "not-found": Kind(
        404,
        "Not found",
        "There is nothing at this URL, or the client has no order with this id or number.",
        "Check the URL; orders are found by their id and by their number (`OF-…`).",
    ),
    "method-not-allowed": Kind(
        405,
        "The method is not allowed here",
        "The URL exists, but not for this method.",
        "The `Allow` header lists the allowed methods.",
    ),
    "request-timeout": Kind(
        408,
        "The request was not completed",
        "Headers must arrive within 10 seconds of the connection, the body within another 20 seconds.",
        "Send the whole request at once, with the same idempotency key.",
    ),
    "idempotency-key-in-use": Kind(
        409,
        "A request with this key is in progress",
        "Another request with the same idempotency key has not been answered yet.",
        "Repeat the same request after `Retry-After` seconds; it gets the response of the first one.",
    ),
    "not-cancellable": Kind(
        409,
        "The order can no longer be cancelled",
        "The order has been shipped or has ended in another way.",
        "See the order's `status` and `reason`.",
    ),
    "length-required": Kind(
        411,
        "The body has no length",
        "The body is chunked, and the server cannot detect its end.",
        "Send `Content-Length`.",
    ),
    "body-too-large": Kind(
        413,
        "The body is too large",
        "A request body may have at most 64 KiB.",
        "Split the order.",
    ),
    "uri-too-long": Kind(
        414,
        "The URL is too long",
        "The first line of a request may have at most 4,094 bytes.",
        "Use fewer or shorter parameters.",
    ),
    "unsupported-media-type": Kind(
        415,
        "The media type of the body is not supported",
        "The API accepts JSON in UTF-8, not compressed.",
        "Send `Content-Type: application/json`, without another `charset` and without `Content-Encoding`.",
    ),
    "expectation-failed": Kind(
        417,
        "The expectation is not supported",
        "Of `Expect`, only `100-continue` is supported.",
        "Send the request without the header.",
    ),
    "validation-failed": Kind(
        422,
        "The request is invalid",
        "Some fields are missing, unknown or malformed; `errors` points at each of them.",
        "Correct the fields; the OpenAPI document contains the rules.",
    ),
    "card-number": Kind(
        422,
        "This looks like a card number",
        "Card numbers must never reach this API; `payment_method` is a token of the payment provider.",
        "Send the provider's token, like `pm_card_visa`. Nothing of the request was stored.",
    ),
    "unknown-product": Kind(
        422,
        "The order names products that do not exist",
        "`errors` points at the items.",
        "Correct the SKUs. Nothing was stored; the key can be used again.",
    ),
    "mixed-currencies": Kind(
        422,
        "The products are priced in another currency",
        "All products of an order must be priced in the order's currency.",
        "Order them separately. Nothing was stored; the key can be used again.",
    ),
    "not-chargeable": Kind(
        422,
        "The total cannot be charged",
        "The payment provider does not charge this amount: it is too small, or not a multiple of the "
        "currency's smallest payment, or the currency is not supported. `detail` contains the reason.",
        "Order more, or in another currency. Nothing was stored; the key can be used again.",
    ),
    "total-too-large": Kind(
        422,
        "The order's total is too large",
        "The total is more than can be stored.",
        "Order less. Nothing was stored; the key can be used again.",
    ),
    "idempotency-key-reused": Kind(
        422,
        "The key was used for another request",
        "An order was placed with this idempotency key by a different request.",
        "Use a fresh key for every new order.",
    ),
    "rate-limited": Kind(
        429,
        "Too many requests",
        "The client, or an address from which no valid token is sent, has used up its rate.",
        "Wait for `Retry-After` seconds.",
    ),
    "headers-too-large": Kind(
        431,
        "The headers are too large",
        "A header may have at most 8,190 bytes, and a request at most 100 headers.",
        "Send fewer or shorter headers.",
    ),
    "internal-error": Kind(
        500,
        "Internal error",
        "An unexpected error. It has been recorded under the `request_id`.",
        "Repeat the request with the same idempotency key: it cannot take effect twice.",
    ),
    "unsupported-transfer-coding": Kind(
        501,
        "The transfer coding is not supported",
        "Of `Transfer-Encoding`, only `chunked` is supported.",
        "Send the body with its `Content-Length`.",
    ),
    "unavailable": Kind(
        503,
        "The service is not available",
        "The database does not respond, the service is not ready yet, or it receives more than it can hold.",
        "Repeat the request after `Retry-After` seconds, with the same idempotency key.",
    ),
}


@dataclasses.dataclass(frozen=True)
class FieldError:
    """One error: a JSON pointer into the body, or the name of a parameter."""

    pointer: str
    code: str
    detail: str


class Problem(Exception):
    """Ends the request with a problem of this code."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))


def response(request: HttpRequest, problem: Problem) -> HttpResponse:
    """Return the problem as a response."""
    work = context.current()
    body = document(problem, instance=request.path, request_id=work.correlation_id)
    if parent := work.trace.get("traceparent"):
        body["trace_id"] = parent.split("-")[1]
    return HttpResponse(
        json.dumps(body), status=body["status"], content_type=CONTENT_TYPE, headers=problem.headers
    )


def document(problem: Problem, *, instance: str, request_id: str) -> dict[str, Any]:
    """Return the problem in the format of RFC 9457."""
    kind = CATALOGUE[problem.code]
    return {
        "type": TYPES + problem.code,
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail or kind.meaning,
        "instance": instance,
        "code": problem.code,
        "errors": [dataclasses.asdict(error) for error in problem.errors],
        "request_id": request_id,
    }


def as_markdown() -> str:
    """Return the catalogue as a page of the documentation."""
    parts = [
        "# Problems\n\n"
        "Every error of the API is an `application/problem+json` document (RFC 9457) with `type`, `title`,\n"
        "`status`, `detail`, `instance`, `code`, `errors` (`pointer`, `code` and `detail` of every wrong\n"
        "field) and `request_id`. Use `code` to distinguish errors; `title` and `detail` are for people and\n"
        "may change. "
        "Written by `manage.py export_openapi`.\n"
    ]
    for code, kind in CATALOGUE.items():
        parts.append(f"\n## {code}\n\n**{kind.status}: {kind.title}.** {kind.meaning}\n\n{kind.remedy}\n")
    return "".join(parts)
