"""
The guard of every URL under /api, also of those that do not exist.

Bodies are limited before they are read, and every error becomes a problem document, in debug mode too.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.signals import got_request_exception
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from ninja.errors import AuthenticationError, HttpError, ValidationError

from orders.api import bodies, problems
from orders.api.problems import FieldError, Problem

View = Callable[..., HttpResponse]

_logger = logging.getLogger(__name__)


def guarded(view: View) -> View:
    """Return `view` with the guard around it."""

    @functools.wraps(view)
    def guard(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            _refuse_plain_http(request)
            bodies.check(request)
            response = view(request, *args, **kwargs)
        except Exception as error:
            return answer(request, error)
        if response.status_code == 405:
            allowed = ", ".join(sorted(response["Allow"].split(", ")))
            return answer(request, Problem("method-not-allowed", headers={"Allow": allowed}))
        return response

    guard.csrf_exempt = True  # type: ignore[attr-defined]  # cookies do not authenticate here
    return guard


def answer(request: HttpRequest, error: Exception | type[Exception]) -> HttpResponse:
    """Return the problem document for `error`; an unexpected one is logged and reported."""
    problem = error if isinstance(error, Problem) else _problem(error)
    if problem.code == "internal-error":
        _logger.error("%s %s failed", request.method, request.path, exc_info=error)  # type: ignore[arg-type]
        got_request_exception.send(sender=None, request=request)
    return problems.response(request, problem)


def nowhere(request: HttpRequest, **_: Any) -> HttpResponse:
    """Every unknown URL under /api."""
    raise Problem("not-found", "there is nothing at this address")


def _refuse_plain_http(request: HttpRequest) -> None:
    """
    Refuse plain HTTP. A redirect would hide that a token was sent unencrypted, and the client would repeat it.

    Raises:
        Problem: if the request came without TLS where TLS is required.
    """
    if settings.SECURE_SSL_REDIRECT and not request.is_secure():
        raise Problem("tls-required")


def _problem(error: Exception | type[Exception]) -> Problem:
    match error:
        case ValidationError():
            return _invalid(error)
        case HttpError(__cause__=Problem() as cause):
            return cause
        case AuthenticationError():
            return Problem("unauthenticated", headers={"WWW-Authenticate": 'Bearer realm="orderflow"'})
        case HttpError(status_code=400) | SuspiciousOperation() | UnreadablePostError():
            too_big = isinstance(error, RequestDataTooBig)
            return Problem("body-too-large" if too_big else "malformed-request")
        case Http404() | HttpError(status_code=404):
            return Problem("not-found")
        case PermissionDenied():
            return Problem("forbidden")
        case OperationalError() | InterfaceError():
            _logger.warning("the database does not answer: %s", error)
            return Problem("unavailable", retry_after=2)
        case _:
            return Problem("internal-error")


def _invalid(error: ValidationError) -> Problem:
    """The errors of ninja and pydantic, as pointers; the values themselves are not repeated."""
    wrong = [(found["loc"], found["type"], found["msg"]) for found in error.errors]
    for loc, kind, _ in wrong:
        if loc[0] == "header" and "idempotency" in str(loc[-1]).lower():
            return Problem(f"idempotency-key-{'missing' if kind == 'missing' else 'malformed'}")
    errors = [FieldError(_pointer(loc), kind.replace("_", "-"), message) for loc, kind, message in wrong]
    if any(loc[0] == "path" for loc, _, _ in wrong):
        return Problem("not-found", "this is neither an order's id nor its number")
    if any(kind == "card_number" for _, kind, _ in wrong):
        return Problem("card-number", errors=errors)
    return Problem("validation-failed", errors=errors)


def _pointer(loc: tuple[Any, ...]) -> str:
    """("body", "order", "items", 0, "sku") → "/items/0/sku"; ("query", "filters", "limit") → "limit"."""
    where, *path = loc
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in path[1:]]
    return "".join(f"/{step}" for step in steps) if where == "body" else str(path[-1]) if path else ""
