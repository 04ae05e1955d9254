"""
How long messages waited and took, for signals: by the clocks of two processes, which may differ.

Nothing is decided by these durations; only people read them. They cost no statement, and are never negative.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from outbox import tracing
from outbox.database import uuid7


def since_written(message_id: str) -> float:
    """Return the seconds since a message was written, by the time in its id."""
    return max(0.0, time.time() - uuid7.moment_of(uuid.UUID(message_id)).timestamp())


def in_queue(request: Any, *, planned: str) -> float | None:
    """
    Return the seconds that a task's message was in its queue; None if its sender did not state when it sent it.

    `planned` is its header with the seconds that it had to wait before it entered the queue.
    """
    sent = tracing.sent_at(request)
    if sent is None:
        return None
    try:
        return max(0.0, time.time() - sent - float(planned or 0))
    except ValueError:  # anybody can write into a queue
        return None
