"""The outbox's periodic tasks, and the probe."""

from __future__ import annotations

import datetime as dt
from typing import Any

from celery import shared_task
from django.db import InterfaceError, OperationalError

from outbox import periodic, telemetry
from outbox.database import clock
from outbox.dead_letters import campaigns
from outbox.relay import probes, relay
from outbox.retention import pruning
from outbox.statistics import rolling_up
from outbox.verification import examination, restores

VERIFY_LIMITS = {"soft_time_limit": 120, "time_limit": 130}
"""Seconds. A verification limits itself to less (`examination.RUN_WITHIN`). It holds no lease and is
acknowledged before it runs, so the limits of other tasks do not apply to it."""

WITHIN = dt.timedelta(seconds=2)
"""How long one drain may take, or one pass over parked messages or running replays. The relay's worker runs one
task at a time, so this limit lets sweeps run every few seconds in a backlog and keeps RabbitMQ's heartbeats
going."""


@periodic.task(every=dt.timedelta(seconds=1))
def drain(**_: Any) -> None:
    """Deliver due messages; covers wake-ups that the relay missed."""
    relay.drain(within=WITHIN)


@periodic.task(every=dt.timedelta(seconds=1))
def sweep(**_: Any) -> None:
    """Redeliver what a broker or a worker has lost, for all subscriptions."""
    probes.sweep()


@shared_task(ignore_result=True, send_events=False)  # Flower shows work, not this
def probe(*, probe_id: int, **_: Any) -> None:
    """Record that the probe has returned. If the database is down the probe is lost; another one follows."""
    try:
        probes.came_back(probe_id)
    except (OperationalError, InterfaceError) as down:
        telemetry.emit("step.database_down", consumer=probe.name, error=str(down))


@periodic.task(every=dt.timedelta(seconds=30))
def unpark(**_: Any) -> None:
    """Release parked messages whose event this code can read."""
    if released := relay.unpark(within=WITHIN):
        telemetry.emit("message.unparked", messages=released)


@periodic.task(every=dt.timedelta(seconds=30))
def settle_replays(**_: Any) -> None:
    """End the replays of work that is done but was not recorded, because its process died."""
    campaigns.end_finished(within=WITHIN)


@periodic.task(every=dt.timedelta(seconds=10))
def watch_for_restores(**_: Any) -> None:
    """Detect that the database was restored, and tell the witness its current position."""
    restores.watch()


@periodic.task(every=rolling_up.EVERY)
def roll_up(**_: Any) -> None:
    """Count new rows into the statistics."""
    rolling_up.roll_up(within=WITHIN)


@periodic.task(every=dt.timedelta(hours=1), ignore_result=False)
def prune(**_: Any) -> dict[str, int]:
    """Delete rows that are older than their retention; the counts are the task's result."""
    return pruning.prune()


@periodic.task(every=dt.timedelta(hours=1), ignore_result=False, **VERIFY_LIMITS)
def verify(**_: Any) -> dict[str, Any]:
    """Examine all invariants that need no provider, and store the report."""
    return _verified(examination.run())


@periodic.task(every=dt.timedelta(days=1), ignore_result=False, **VERIFY_LIMITS)
def compare_with_providers(*, hours: int = 26, **_: Any) -> dict[str, Any]:
    """Examine the last `hours`, including the providers' own records, and store the report."""
    return _verified(examination.run(since=clock.now() - dt.timedelta(hours=hours), providers=True))


def _verified(report: examination.VerificationReport) -> dict[str, Any]:
    kept = examination.keep(report, by="beat")
    return {"verification": kept.pk, "passed": report.passed, "failed": report.failed}
