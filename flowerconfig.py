"""Flower's configuration. Flower reads it from the folder it is started in."""

import os
from pathlib import Path

from flower.views import BaseHandler, monitor
from tornado.web import HTTPError, authenticated

import orderflow.celery  # noqa: F401 - names the settings
from orderflow.observability import logs

if secret := os.environ.get("FLOWER_BASIC_AUTH_FILE"):
    basic_auth = [Path(secret).read_text().strip()]  # Flower itself reads only FLOWER_BASIC_AUTH

logging = "none"  # otherwise Tornado would set the level
logs.configure_logging()

# Flower serves its metrics (names of tasks, workers and their load) without authentication.
monitor.Metrics.get = authenticated(monitor.Metrics.get)  # type: ignore[method-assign]
_current_user = BaseHandler.get_current_user


def get_current_user(handler: BaseHandler) -> object:
    """Return the user. Without a configured password, Flower would admit everybody."""
    if not (handler.application.options.basic_auth or handler.application.options.auth):
        raise HTTPError(403, "Flower has no password: set FLOWER_BASIC_AUTH to user:password.")
    return _current_user(handler)


BaseHandler.get_current_user = get_current_user  # type: ignore[method-assign]
