"""Around Django: requests that it cannot even take, and that no middleware of its own therefore sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.utils.http import parse_header_parameters

UNREADABLE = "application/octet-stream"
"""What a body is of which nobody can say what it is: the API answers it with 415, and to forms it is empty."""

CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class ReadableContentType:
    """
    Hand requests on with a `Content-Type` that can be read.

    Django fails on some that cannot, before it can answer; and decodes addresses, too, by the `charset` that a
    client names, which may be none for texts, such as `hex`. All of our pages and the API are in UTF-8.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        kind = environ.get("CONTENT_TYPE", "")
        if ";" in kind and not _is_readable(kind):
            environ["CONTENT_TYPE"] = UNREADABLE
        return self.application(environ, start_response)


def _is_readable(kind: str) -> bool:
    try:
        _, parameters = parse_header_parameters(kind)
    except ValueError:
        return False
    return str(parameters.get("charset", "utf-8")).lower() in CHARSETS
