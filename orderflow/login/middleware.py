"""Login limits and session expiry, around every request of staff."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from orderflow.login.limits import TooManyLogins
from outbox import telemetry

GetResponse = Callable[[HttpRequest], HttpResponse]

BEGAN, SEEN = "login_began_at", "login_seen_at"
"""Session keys: when its user logged in, and when they were last seen, in Unix seconds."""

PRECISION = 60
"""Seconds that `SEEN` may be outdated, so that not every page writes the session."""

AUTOMATIC = "X-Automatic"
"""The header of requests that a page makes by itself. They do not prolong the session: nobody may be there."""


class LoginMiddleware:
    """Respond with 429 when a login is refused; end sessions that are idle or old."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        # Requests without the cookie have no session, and requests to the API never load one.
        if settings.SESSION_COOKIE_NAME in request.COOKIES and request.user.is_authenticated:
            _end_or_touch(request)
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Turn the backend's refusal into a response."""
        if not isinstance(error, TooManyLogins):
            return None
        seconds = max(1, math.ceil(error.retry_after))
        response = TemplateResponse(
            request, "admin/too_many_logins.html", {"title": "Too many logins", "seconds": seconds}, status=429
        )
        response["Retry-After"] = str(seconds)
        response["Cache-Control"] = "no-store"
        return response.render()


def begin(request: HttpRequest) -> None:
    """Record in the session that its user has just logged in."""
    request.session[BEGAN] = request.session[SEEN] = int(time.time())


def _end_or_touch(request: HttpRequest) -> None:
    now = int(time.time())
    began, seen = (request.session.get(name) for name in (BEGAN, SEEN))
    if not (isinstance(began, int) and isinstance(seen, int)):
        reason = "unknown age"  # created before there were limits
    elif now - began > settings.SESSION_HOURS * 3600:
        reason = "too old"
    elif now - seen > settings.SESSION_IDLE_MINUTES * 60:
        reason = "idle"
    else:
        if now - seen >= PRECISION and AUTOMATIC not in request.headers:
            request.session[SEEN] = now
        return
    telemetry.emit("session.expired", user_id=request.user.pk, reason=reason)
    logout(request)
