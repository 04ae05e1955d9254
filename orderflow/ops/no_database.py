"""The page of the admin in place of all others while the database does not answer: users are rows, too."""

from __future__ import annotations

import sys

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.views import defaults

RETRY_AFTER = 5
"""Seconds."""


def server_error(request: HttpRequest) -> HttpResponse:
    """Respond to a request that no view could handle: 503 if it was for the database's sake, else 500."""
    error = sys.exc_info()[1]
    if not (request.path.startswith("/admin") and isinstance(error, OperationalError | InterfaceError)):
        return defaults.server_error(request)
    # Without the request: its user cannot be read.
    text = render_to_string("admin/no_database.html", {"runbooks_url": settings.RUNBOOKS_URL.rstrip("/")})
    headers = {"Retry-After": str(RETRY_AFTER), "Cache-Control": "no-store"}
    return HttpResponse(text, status=503, headers=headers)
