"""
Tries that found something outside down, told as one wait instead of one by one.

An outage is one fact however often a consumer has looked whether it is over. Only consecutive waits of one
consumer for one message belong together: a failure of its own in between is another story.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from outbox.command_lines import counted
from outbox.models import Attempt


def is_wait(attempt: Attempt) -> bool:
    """Whether the try spent no attempt, because something outside was not ready."""
    return attempt.outcome == Attempt.Outcome.WAITED


def grouped(attempts: Iterable[Attempt]) -> list[list[Attempt]]:
    """The tries in their order, with the checks of each wait together at the place of the first one."""
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
    """`waiting since 06:26 UTC, 15 checks`, or from when to when, once it is over."""
    how_often = counted(len(checks), "check")
    since = f"{checks[0].failed_at:%H:%M}"
    if ended_at is None:
        return f"waiting since {since} UTC, {how_often}"
    return f"waited from {since} to {ended_at:%H:%M} UTC, {how_often}"
