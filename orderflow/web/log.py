"""
Gunicorn's logs, in the project's format and with its redaction: its own messages, and one line per request.
"""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

import structlog
from gunicorn import glogging  # type: ignore[import-untyped]

LONGEST_AGENT = 200
"""Characters of a `User-Agent` that are kept."""


class Logger(glogging.Logger):
    """Gunicorn's logger, which passes everything to `orderflow.observability.logs`."""

    def setup(self, cfg: Any) -> None:
        """Called when Gunicorn starts and when it reloads its configuration."""
        super().setup(cfg)
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orderflow.settings")
        from orderflow.observability import logs

        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True
        logs.configure_logging()

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: dt.timedelta) -> None:
        """Log a request, if access logs are enabled. The line contains neither query nor referrer."""
        if self.access_log_enabled:
            _logger.info("request.answered", **_line(resp, environ, seconds=request_time.total_seconds()))


_logger = structlog.stdlib.get_logger("gunicorn.access")


def _line(resp: Any, environ: dict[str, Any], *, seconds: float) -> dict[str, Any]:
    answered = {str(name).lower(): value for name, value in resp.headers}
    return {
        "method": environ.get("REQUEST_METHOD"),
        "path": environ.get("PATH_INFO"),
        "status": str(resp.status).split(maxsplit=1)[0],
        "bytes": getattr(resp, "sent", None),
        "seconds": round(seconds, 6),
        "client": environ.get("REMOTE_ADDR"),
        "agent": str(environ.get("HTTP_USER_AGENT", ""))[:LONGEST_AGENT],
        "correlation_id": answered.get("x-request-id", ""),
    }
