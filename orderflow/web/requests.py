"""A wrapper around Django for requests that it cannot handle, and that no middleware therefore sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.utils.http import parse_header_parameters

UNREADABLE = "application/octet-stream"
"""The content type of a body of unknown type: the API responds with 415, and for forms it is empty."""

CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class ReadableContentType:
    """
    Pass requests on with a `Content-Type` that can be parsed.

    Django fails on some malformed ones before it can respond. It also decodes URLs by the client's `charset`,
    which may not be an encoding of text, such as `hex`. All our pages and the API use UTF-8.
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
