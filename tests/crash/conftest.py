"""Lets a process die at a crash point, and lets its work be finished afterwards."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import traceback

import pytest
from celery import current_app
from django.db import connections

from notifications import channels
from orders import adapters
from orders import sweep as late_orders
from orders.models import Order
from outbox import crash_points, registry, testing
from outbox.dead_letters import campaigns
from outbox.models import DeadLetter, Delivery, OutboxMessage
from outbox.relay import probes, relay
from outbox.verification import catalogue, examination
from tests.conftest import close_breakers
from tests.crash import stories

DIED, FAILED = 77, 78
ROUNDS = 12
"""Of five minutes each: more than any lease, redelivery or sweep waits."""


@pytest.fixture
def begin(drain, world, monkeypatch):
    """Prepare a story and return it."""
    monkeypatch.setattr(registry, "_events", dict(registry._events))
    monkeypatch.setattr(registry, "_workflows", {name: dict(w) for name, w in registry._workflows.items()})
    registry.register([stories.outbox.Learned])
    registry.subscribe(stories.outbox.SUBSCRIPTIONS)

    def begin(name):
        story = dataclasses.replace(stories.STORIES[name], world=world)
        story.prepare(story)
        return story

    yield begin
    channels.forget()


def die_at(point, work):
    """Do the work in a child process that ends at the crash point; return whether it reached it."""
    connections.close_all()  # nothing open may be shared with the child
    stories.outbox.close_pools()
    adapters.forget()
    channels.forget()
    child = os.fork()
    if child == 0:
        try:
            crash_points.arm(lambda name: os._exit(DIED) if name == point else None)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(FAILED)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, DIED), f"the child failed on its own, exit code {code}"
    return code == DIED


def restore_unacknowledged():
    """Let the broker redeliver what the dead process had taken, as after the visibility timeout."""
    with current_app.connection_for_read() as broker:
        channel = broker.default_channel
        for tag in channel.client.hkeys(channel.unacked_key):
            channel.qos.restore_by_tag(tag)


def forget_everything():
    """Let the broker lose all its messages."""
    testing.purge()
    with current_app.connection_for_write() as broker:
        channel = broker.default_channel
        channel.client.delete(channel.unacked_key, channel.unacked_index_key)


def recover():
    """Let time pass and periodic tasks run until nothing is left to do."""
    for _ in range(ROUNDS):
        close_breakers()
        testing.drain()
        if is_quiet():
            return
        testing.pass_time(dt.timedelta(minutes=5))
        late_orders.resume_overdue()
        probes.sweep()
        relay.unpark()
        campaigns.end_finished()


def is_quiet():
    return not (
        OutboxMessage.objects.undelivered().exists()
        or Delivery.objects.exists()
        or Order.objects.unfinished().exists()
        or DeadLetter.objects.filter(resolution=DeadLetter.Resolution.REPLAYING).exists()
    )


def assert_nothing_is_lost_or_done_twice(story):
    """
    All orders are final, all notifications sent, no dead letter is open, and the providers' books match ours.

    Enough time passes first that no invariant tolerates anything as being under way.
    """
    testing.pass_time(beyond_any_patience())
    assert not Order.objects.unfinished().exists(), list(Order.objects.values_list("status", "due_at"))
    assert not DeadLetter.objects.unresolved().exists()
    report = examination.run(providers=True)
    assert report.passed, [finding.as_json() for finding in report.findings if not finding_passes(finding)]


def beyond_any_patience():
    """Longer than any invariant tolerates."""
    values = [value for invariant in catalogue.invariants() for value in invariant.values().values()]
    return 2 * max(value for value in values if isinstance(value, dt.timedelta))


def finding_passes(finding):
    return finding.verdict in examination.PASSING
