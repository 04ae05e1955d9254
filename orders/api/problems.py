"""
Problems: every error of the API as `application/problem+json` (RFC 9457), and the catalogue of them.

`docs/problems.md` is written from the catalogue by `manage.py export_openapi`. A problem never says
more than its detail: no stack, no SQL, no value that the client sent.
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
"""Where the types of problems are explained: `/api/v1/problems/<code>`."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of problem: what it means, and what the client can do."""

    status: int
    title: str
    meaning: str
    remedy: str


CATALOGUE: dict[str, Kind] = {
    "malformed-request": Kind(
        400,
        "The request cannot be read",
        "The body is no JSON, names a member of an object twice, or the request is malformed in another way.",
        "Send UTF-8 encoded JSON with `Content-Type: application/json`, every member of an object once.",
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
        "Send `Authorization: Bearer <token>`; tokens are made with `manage.py api_token create`.",
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
        "The token is valid, but only for requests from certain networks, and this one came from elsewhere.",
        "Send it from an allowed network, or have the networks changed: `manage.py api_token allow`.",
    ),
    "tls-required": Kind(
        403,
        "The request came over plain HTTP",
        "Nothing was done, and it is not redirected: a token that it carried crossed the network unencrypted "
        "and counts as leaked.",
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
        "There is no such thing",
        "The address leads nowhere, or the client has no order of this id or number.",
        "Check the address; orders are found by their id and by their number (`OF-…`).",
    ),
    "method-not-allowed": Kind(
        405,
        "The method is not allowed here",
        "The address exists, the method does not.",
        "The `Allow` header lists the methods there are.",
    ),
    "request-timeout": Kind(
        408,
        "The request did not come to its end",
        "Headers have to be there within 10 seconds of the connection, the body within another 20 seconds.",
        "Send the whole request at once, with the same idempotency key.",
    ),
    "idempotency-key-in-use": Kind(
        409,
        "A request with this key is being worked on",
        "Another request with the same idempotency key has not been answered yet.",
        "Repeat the same request after `Retry-After` seconds; it gets the answer of the first one.",
    ),
    "not-cancellable": Kind(
        409,
        "The order cannot be cancelled any more",
        "The order has been shipped or has ended otherwise.",
        "Look at the order's `status` and `reason`.",
    ),
    "length-required": Kind(
        411,
        "The body has no length",
        "The body comes in chunks, and the server cannot tell where they end.",
        "Send `Content-Length`.",
    ),
    "body-too-large": Kind(
        413,
        "The body is too large",
        "A request may have a body of 64 KiB.",
        "Split the order.",
    ),
    "uri-too-long": Kind(
        414,
        "The address is too long",
        "The first line of a request may have 4,094 bytes.",
        "Ask with fewer or shorter parameters.",
    ),
    "unsupported-media-type": Kind(
        415,
        "The body is of a type that is not understood",
        "The API understands JSON in UTF-8, not compressed.",
        "Send `Content-Type: application/json`, without another `charset` and without `Content-Encoding`.",
    ),
    "expectation-failed": Kind(
        417,
        "The request expects what is not done here",
        "Of `Expect`, only `100-continue` is understood.",
        "Send the request without the header.",
    ),
    "validation-failed": Kind(
        422,
        "The request does not follow the rules",
        "Some fields are missing, unknown or malformed; `errors` points at each of them.",
        "Correct the fields; the OpenAPI document states the rules.",
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
        "The payment provider charges no such amount: it is too small, or not a multiple of the currency's "
        "smallest payment, or the currency is not charged at all. `detail` says which.",
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
        "An order was placed with this idempotency key, and that request said something else.",
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
        "A header may have 8,190 bytes, and a request 100 headers.",
        "Send fewer or shorter headers.",
    ),
    "internal-error": Kind(
        500,
        "Something went wrong on our side",
        "An error that nobody foresaw. It has been recorded under the `request_id`.",
        "Repeat the request with the same idempotency key: it cannot take effect twice.",
    ),
    "unsupported-transfer-coding": Kind(
        501,
        "The transfer coding is not understood",
        "Of `Transfer-Encoding`, only `chunked` is understood.",
        "Send the body with its `Content-Length`.",
    ),
    "unavailable": Kind(
        503,
        "The service is not available",
        "The database does not answer, the service is not ready yet, or it receives more than it can hold.",
        "Repeat the request after `Retry-After` seconds, with the same idempotency key.",
    ),
}


@dataclasses.dataclass(frozen=True)
class FieldError:
    """One thing that is wrong: a JSON pointer into the body, or the name of a parameter."""

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
    """The problem as a response."""
    work = context.current()
    body = document(problem, instance=request.path, request_id=work.correlation_id)
    if parent := work.trace.get("traceparent"):
        body["trace_id"] = parent.split("-")[1]
    return HttpResponse(
        json.dumps(body), status=body["status"], content_type=CONTENT_TYPE, headers=problem.headers
    )


def document(problem: Problem, *, instance: str, request_id: str) -> dict[str, Any]:
    """The problem as RFC 9457 writes it down."""
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
    """The catalogue as a page of the documentation."""
    parts = [
        "# Problems\n\n"
        "Every error of the API is an `application/problem+json` document (RFC 9457) with `type`, `title`,\n"
        "`status`, `detail`, `instance`, `code`, `errors` (`pointer`, `code` and `detail` of every wrong\n"
        "field) and `request_id`. Decide by `code`; `title` and `detail` are for people and may change.\n"
        "Written by `manage.py export_openapi`.\n"
    ]
    for code, kind in CATALOGUE.items():
        parts.append(f"\n## {code}\n\n**{kind.status}: {kind.title}.** {kind.meaning}\n\n{kind.remedy}\n")
    return "".join(parts)
