"""
Groups the tries of a consumer that waits for an outage to end.

During an outage a consumer tries again and again, which counts as one wait. Only consecutive waits of one
consumer for one message are grouped; a failure of the message's own in between separates them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from outbox.command_lines import counted
from outbox.models import Attempt


def is_wait(attempt: Attempt) -> bool:
    """Return whether the try spent no attempt, because an outside system was not available."""
    return attempt.outcome == Attempt.Outcome.WAITED


def grouped(attempts: Iterable[Attempt]) -> list[list[Attempt]]:
    """Return the tries in their order; the tries of one wait are grouped at the position of the first one."""
    groups: list[list[Attempt]] = []
    under_way: dict[tuple[object, str], list[Attempt]] = {}
    for attempt in attempts:
        key = attempt.message_id, attempt.consumer
        if is_wait(attempt) and key in under_way:
            under_way[key].append(attempt)
            continue
        groups.append([attempt])
        under_way.pop(key, None)
        if is_wait(attempt):
            under_way[key] = groups[-1]
    return groups


def sentence(checks: list[Attempt], *, ended_at: dt.datetime | None = None) -> str:
    """Return `waiting since 06:26 UTC, 15 checks`, or `waited from … to …` if the wait is over."""
    how_often = counted(len(checks), "check")
    since = f"{checks[0].failed_at:%H:%M}"
    if ended_at is None:
        return f"waiting since {since} UTC, {how_often}"
    return f"waited from {since} to {ended_at:%H:%M} UTC, {how_often}"
