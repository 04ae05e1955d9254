"""Complete responses that no provider should send: any status, any language, or for another request."""

from __future__ import annotations

import dataclasses
import gzip
import json
import zlib

HTML = b"<!doctype html><html><body><h1>Welcome to nginx!</h1></body></html>"
REFUSAL = json.dumps({"error": {"type": "card_error", "code": "card_declined", "message": "no"}}).encode()


@dataclasses.dataclass(frozen=True)
class Answer:
    """A status, a body and some headers."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


def _encoded(name: str, body: bytes) -> Answer:
    return Answer(200, body, (("Content-Type", "application/json"), ("Content-Encoding", name)))


def _typed(content_type: str, body: bytes) -> Answer:
    return Answer(200, body, (("Content-Type", content_type),))


ANSWERS: dict[str, Answer] = {
    "no content": Answer(204),
    "reset content": Answer(205),
    "part of it": Answer(206, b'{"id": "x"'),
    "not modified": Answer(304),
    "accepted": Answer(202, b"{}"),
    "nothing": Answer(200),
    "a page": _typed("text/html", HTML),
    "a page that was created": Answer(201, HTML, (("Content-Type", "text/html"),)),
    "an object that says nothing": Answer(200, b"{}"),
    "a list": Answer(200, b"[]"),
    "a list of lists": Answer(201, b"[[[]]]"),
    "null": Answer(200, b"null"),
    "a text": Answer(200, b'"ok"'),
    "true": Answer(201, b"true"),
    "a number": Answer(200, b"1e999"),
    "a refusal that went well": Answer(200, REFUSAL),
    "a failure that went well": Answer(200, b'{"error": "Internal Server Error", "status": 500}'),
    "a name twice": Answer(200, b'{"data": [], "has_more": false, "data": null}'),
    "two objects": Answer(200, b"{}{}"),
    "a mark before it": Answer(200, b"\xef\xbb\xbf{}"),
    "UTF-16": _typed("application/json; charset=utf-16", "{}".encode("utf-16")),
    "UTF-32 that says that it is UTF-8": _typed("application/json; charset=utf-8", "{}".encode("utf-32")),
    "a character set that nobody knows": _typed("application/json; charset=klingon", b'{"message": "\xff"}'),
    "a character set that is none": _typed("application/json; charset=base64", b"e30="),
    "no UTF-8": Answer(200, b'{"message": "\xff\xfe"}'),
    "NUL": Answer(200, bytes(100)),
    "gzip that is none": _encoded("gzip", b"{}"),
    "gzip that is cut off": _encoded("gzip", gzip.compress(b"{}" * 100)[:-9]),
    "deflate that is none": _encoded("deflate", b"{}"),
    "gzip as deflate": _encoded("deflate", gzip.compress(b"{}")),
    "zlib three times": _encoded("deflate, deflate, deflate", zlib.compress(zlib.compress(b"{}"))),
    "an encoding that nobody knows": _encoded("klingon", b"{}"),
    "a hundred encodings": _encoded(", ".join(["gzip"] * 100), b"{}"),
    "a redirect to nowhere": Answer(302),
    "a redirect to a file": Answer(307, b"", (("Location", "file:///etc/passwd"),)),
    "a bad request of somebody between": Answer(400, HTML, (("Content-Type", "text/html"),)),
    "a sign-in page": Answer(401, HTML, (("Content-Type", "text/html"), ("WWW-Authenticate", "Negotiate"))),
    "pay first": Answer(402, b"{}"),
    "a card that is declined by nobody": Answer(402, b'{"error": null}'),
    "errors that are a list": Answer(402, b'{"error": [{"code": "card_declined"}]}'),
    "an error that is a text": Answer(400, b'{"error": "no", "message": 5}'),
    "an error whose code is a list": Answer(400, b'{"error": {"type": ["a"], "code": ["b"]}, "code": ["c"]}'),
    "an error whose code is a large number": Answer(400, b'{"code": 1e999, "status": 1e999, "message": null}'),
    "an error whose status is a text": Answer(400, b'{"error": {"status": "400"}, "more_info": {}}'),
    "forbidden": Answer(403, b"null"),
    "a portal": Answer(511, HTML, (("Content-Type", "text/html"),)),
    "gone": Answer(410, b"[]"),
    "a conflict": Answer(409, b'"no"'),
    "no words for it": Answer(422, b'{"code": {"a": 1}, "reason": ["b"]}'),
    "come back never": Answer(429, b"{}", (("Retry-After", "9" * 400),)),
    "come back before": Answer(503, b"{}", (("Retry-After", "Thu, 01 Jan 1970 00:00:00 GMT"),)),
    "come back at no time": Answer(503, b"{}", (("Retry-After", "\xff, soon; NaN"),)),
    "a teapot": Answer(418, b"{}"),
    "a status that nobody knows": Answer(299, b"{}"),
    "a status beyond": Answer(999, b"{}"),
    "a failure in a page": Answer(500, HTML, (("Content-Type", "text/html"),)),
    "a failure that says that it went well": Answer(500, b'{"id": "x", "status": "succeeded"}'),
}
"""Responses that report neither a success nor a refusal."""
