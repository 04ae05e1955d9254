"""For a worker that says what it has loaded: `celery -A orderflow worker -I tests.metrics.imported`."""

from __future__ import annotations

import logging
import sys

from celery import signals

UNWANTED = (
    "prometheus_client",
    "http.server",
    "orderflow.observability.metrics",
    "orderflow.observability.counting",
)


@signals.worker_ready.connect
def say(**_):
    logging.getLogger("orderflow").warning("imported: %s", [name for name in UNWANTED if name in sys.modules])
