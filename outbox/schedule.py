"""
The outbox's entries for Celery's beat schedule.

They are plain data, because Celery reads its configuration before Django's apps are ready.
"""

from __future__ import annotations

from typing import Any

from celery.schedules import crontab

DRAIN_INTERVAL, SWEEP_INTERVAL = 1.0, 1.0  # seconds


def beat(*, queue: str = "relay", jobs: str = "jobs") -> dict[str, dict[str, Any]]:
    """
    Return the entries, by name.

    `queue` is `OUTBOX_RELAY_QUEUE`, for tasks that run every few seconds. `jobs` is the queue of tasks that may
    take minutes. Both may be the same queue if its worker runs more than one task at a time.
    """
    relay, slow = {"queue": queue}, {"queue": jobs}
    return {
        "drain the outbox": {"task": "outbox.tasks.drain", "schedule": DRAIN_INTERVAL, "options": relay},
        "resume lost deliveries": {"task": "outbox.tasks.sweep", "schedule": SWEEP_INTERVAL, "options": relay},
        "read what was parked": {"task": "outbox.tasks.unpark", "schedule": 30.0, "options": relay},
        "settle replays": {"task": "outbox.tasks.settle_replays", "schedule": 30.0, "options": relay},
        "notice a restored backup": {
            "task": "outbox.tasks.watch_for_restores",
            "schedule": 10.0,
            "options": relay,
        },
        "roll up the statistics": {"task": "outbox.tasks.roll_up", "schedule": 60.0, "options": relay},
        "prune the outbox": {"task": "outbox.tasks.prune", "schedule": 3600.0, "options": slow},
        # A time of day instead of an interval: intervals start again whenever beat starts.
        "verify what is promised": {
            "task": "outbox.tasks.verify",
            "schedule": crontab(minute=7),
            "options": slow,
        },
        "compare with the providers": {
            "task": "outbox.tasks.compare_with_providers",
            "schedule": crontab(hour=3, minute=37),
            "options": slow,
        },
    }
