"""
The transactional outbox: what happens later is a row, and only the relay hands rows to Celery.

The root holds the nouns that other apps use; what stands behind them is in packages. Nothing here knows the
project or its other apps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["install"]


def install(app: Celery) -> None:
    """
    Make a Celery application deliver the outbox's messages, and guard its workers.

    Call it right after the application is made. It adds the outbox's entries to the beat schedule, and defaults
    for settings that the project does not set itself: a worker that no message ends, a beat without a file, and
    connections that do not hang. It bounds compressed bodies, checks control commands, and verifies the
    certificate of the broker. Tasks of the project run as before.
    """
    from outbox.worker import installation  # here: a package that imports Celery to be imported is slow

    installation.install(app)
