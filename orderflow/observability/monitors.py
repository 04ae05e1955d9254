"""
Cron monitors in Sentry: one for each entry of beat's schedule, created by its first check-in.

The process that runs a periodic task checks in, not beat: only a task that is done proves that beat, the broker
and a worker work. An hourly or daily task checks in when it begins and when it ends. Those that run every few
seconds check in once a minute, the shortest interval that Sentry knows, and at once when one fails or recovers.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from typing import Any, Literal

from celery import current_app, signals
from celery.schedules import crontab
from sentry_sdk.crons import capture_checkin

from outbox.periodic import PeriodicTask

CHECKED_IN_EVERY = 50.0
"""Seconds between two check-ins of a frequent task. A little less than the interval of its monitor."""

MARGIN = 3
"""Minutes that a check-in may be late before Sentry reports it as missed: a deployment takes that long."""

LONGEST_RUN = 5
"""Minutes after which a task that has begun counts as hanging; `verify` may take two."""

Status = Literal["ok", "error", "in_progress"]


@dataclasses.dataclass
class Monitor:
    """The monitor of one periodic task, and what this process has last said to it."""

    slug: str
    schedule: dict[str, Any]
    is_frequent: bool
    last_status: str = ""
    said_at: float = 0.0
    check_in: str | None = None

    def configuration(self) -> Any:
        """Return what creates or updates the monitor in Sentry."""
        return {
            "schedule": self.schedule,
            "timezone": "UTC",
            "checkin_margin": MARGIN,
            "max_runtime": LONGEST_RUN,
            "failure_issue_threshold": 2 if self.is_frequent else 1,
            "recovery_threshold": 1,
        }

    def say(self, status: Status) -> None:
        """Check in, unless a frequent task has said the same a moment ago."""
        now = time.monotonic()
        is_news = status != self.last_status or now - self.said_at >= CHECKED_IN_EVERY
        if self.is_frequent and (status == "in_progress" or not is_news):
            return
        self.last_status, self.said_at = status, now
        check_in = capture_checkin(
            monitor_slug=self.slug,
            check_in_id=None if status == "in_progress" else self.check_in,
            status=status,
            monitor_config=self.configuration(),
        )
        self.check_in = check_in if status == "in_progress" else None


def monitors() -> dict[str, Monitor]:
    """Return a monitor for each entry of the schedule, by the name of its task."""
    return {
        entry["task"]: Monitor(slug=slug(name), **_schedule(entry["schedule"]))
        for name, entry in current_app.conf.beat_schedule.items()
    }


def slug(entry: str) -> str:
    """Return the slug of an entry: lower case, digits and dashes, at most 50 characters."""
    return re.sub(r"[^a-z0-9]+", "-", entry.lower()).strip("-")[:50]


def _schedule(schedule: Any) -> dict[str, Any]:
    if isinstance(schedule, crontab):
        parts = ("_orig_minute", "_orig_hour", "_orig_day_of_month", "_orig_month_of_year", "_orig_day_of_week")
        value = " ".join(str(getattr(schedule, part)) for part in parts)
        return {"schedule": {"type": "crontab", "value": value}, "is_frequent": False}
    every = schedule if isinstance(schedule, int | float) else schedule.run_every.total_seconds()
    minutes = max(1, math.ceil(every / 60))
    interval = {"type": "interval", "value": minutes, "unit": "minute"}
    return {"schedule": interval, "is_frequent": every <= 60}


_monitors: dict[str, Monitor] = {}


def connect() -> None:
    """Check in from now on whenever a periodic task ends in this process. It may be called again."""
    _monitors.clear()
    signals.task_prerun.connect(_begun)
    signals.task_success.connect(_done)
    signals.task_failure.connect(_failed)


def _say(task: Any, status: Status) -> None:
    if isinstance(task, PeriodicTask):
        if not _monitors:
            _monitors.update(monitors())
        if monitor := _monitors.get(task.name):
            monitor.say(status)


def _begun(sender: Any = None, **_: Any) -> None:
    _say(sender, "in_progress")


def _done(sender: Any = None, **_: Any) -> None:
    _say(sender, "ok")


def _failed(sender: Any = None, **_: Any) -> None:
    _say(sender, "error")
