"""Beat entries: what the clock asks of the outbox. No step of an order is here."""

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
from outbox.verification import examination, restores

VERIFY_LIMITS = {"soft_time_limit": 120, "time_limit": 130}
"""Seconds. A verification bounds itself below that (`examination.RUN_WITHIN`); it holds no lease, and it is
acknowledged before it runs, so the other tasks' limits do not concern it."""

WITHIN = dt.timedelta(seconds=2)
"""How long one drain goes on, or one look through what is parked or being replayed. The relay's worker runs one
task at a time: so sweeps have their turn every few seconds in a backlog, and RabbitMQ gets its heartbeats."""


@periodic.task(every=dt.timedelta(seconds=1))
def drain(**_: Any) -> None:
    """Deliver what is due: the safety net under the relay's wake-up."""
    relay.drain(within=WITHIN)


@periodic.task(every=dt.timedelta(seconds=1))
def sweep(**_: Any) -> None:
    """Deliver again what a broker or a worker has lost, of all subscriptions."""
    probes.sweep()


@shared_task(ignore_result=True, send_events=False)  # Flower shows work, not this
def probe(*, probe_id: int, **_: Any) -> None:
    """Come back. One that finds the database down is lost; there will be another."""
    try:
        probes.came_back(probe_id)
    except (OperationalError, InterfaceError) as down:
        telemetry.emit("step.database_down", consumer=probe.name, error=str(down))


@periodic.task(every=dt.timedelta(seconds=30))
def unpark(**_: Any) -> None:
    """Make parked messages due whose event the code has learned to read since."""
    if released := relay.unpark(within=WITHIN):
        telemetry.emit("message.unparked", messages=released)


@periodic.task(every=dt.timedelta(seconds=30))
def settle_replays(**_: Any) -> None:
    """End the replays of work that is done although the process that did it died before saying so."""
    campaigns.end_finished(within=WITHIN)


@periodic.task(every=dt.timedelta(seconds=10))
def watch_for_restores(**_: Any) -> None:
    """Notice that the database went back in time, and let the witness know how far it has come."""
    restores.watch()


@periodic.task(every=dt.timedelta(hours=1), ignore_result=False)
def prune(**_: Any) -> dict[str, int]:
    """Delete what has outlived its retention; the counts are the task's result."""
    return pruning.prune()


@periodic.task(every=dt.timedelta(hours=1), ignore_result=False, **VERIFY_LIMITS)
def verify(**_: Any) -> dict[str, Any]:
    """Compare what is promised with what there is, and keep what was found."""
    return _verified(examination.run())


@periodic.task(every=dt.timedelta(days=1), ignore_result=False, **VERIFY_LIMITS)
def compare_with_providers(*, hours: int = 26, **_: Any) -> dict[str, Any]:
    """The same for the last `hours`, and with the providers' own records."""
    return _verified(examination.run(since=clock.now() - dt.timedelta(hours=hours), providers=True))


def _verified(report: examination.VerificationReport) -> dict[str, Any]:
    kept = examination.keep(report, by="beat")
    return {"verification": kept.pk, "passed": report.passed, "failed": report.failed}
