"""Logs, and what else receives the facts that `outbox.telemetry` states."""

from __future__ import annotations

import logging


def configure_logging() -> None:
    """Send logs to standard error."""
    logging.basicConfig(level=logging.INFO)
