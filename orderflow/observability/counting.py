"""
Which signal counts in which metric, and the bounds of labels. No vendor: children of a pool need none to count.

A label is the name of a registered task, of a known event or of one of our providers, and `other` otherwise:
names in messages may come from anybody who reaches the broker.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from celery import current_app

from orderflow import providers
from orderflow.observability import metric_names as names
from orderflow.observability.metric_names import OTHER
from outbox import registry

Fields: TypeAlias = Mapping[str, Any]


class Count(NamedTuple):
    """What a signal adds to one metric: 1 to a counter, or seconds to a histogram."""

    metric: str
    labels: tuple[str, ...]
    value: float


def counts(signal: str, fields: Fields) -> Sequence[Count]:
    """Return what a signal adds to metrics; nothing for most signals."""
    rule = RULES.get(signal)
    return rule(fields) if rule else ()


@functools.lru_cache(maxsize=1000)
def task_label(name: str) -> str:
    """Return the name of a registered task, or `other`."""
    return name if name in current_app.tasks else OTHER


@functools.lru_cache(maxsize=1000)
def consumer_label(name: str) -> str:
    """Return the name of what has given up a message: a task, the relay, a worker's consumer, or `other`."""
    from outbox.relay import setbacks  # it needs the models, which Gunicorn's main process may not have
    from outbox.worker import unreadable

    return name if name in (setbacks.CONSUMER, unreadable.CONSUMER) else task_label(name)


@functools.lru_cache(maxsize=1000)
def event_of(workflow: str) -> str:
    """Return the event that starts a workflow; `other` if none does, or several do."""
    events = [event for event, name in registry.workflows_starting_with(workflow) if name == workflow]
    return events[0] if len(events) == 1 else OTHER


def _attempt(task: str, outcome: str) -> list[Count]:
    """One more attempt of a task and, if it delivers notifications, one more try of its channel."""
    found = [_one(names.TASK_ATTEMPTS, task_label(task), _among(names.ATTEMPTS, outcome))]
    channel = CHANNELS.get(task)
    if channel and outcome in names.NOTIFICATIONS:  # those that succeed have signals of their own
        found.append(_one(names.NOTIFICATION_ATTEMPTS, channel, outcome))
    return found


def _ended(fields: Fields, *, outcome: str) -> list[Count]:
    task = fields["consumer"]
    took = Count(names.TASK_DURATION.name, (task_label(task),), fields["seconds"])
    return [*_attempt(task, outcome), took]


def _waits(fields: Fields) -> list[Count]:
    return _attempt(fields["consumer"], "outage") if fields["outage"] else []


def _begun(fields: Fields) -> list[Count]:
    return [Count(names.QUEUE_WAIT.name, (task_label(fields["consumer"]),), fields["queue_seconds"])]


def _finished(fields: Fields) -> list[Count]:
    return [Count(names.CRITICAL_TIME.name, (event_of(fields["workflow"]),), fields["seconds"])]


def _called(fields: Fields) -> list[Count]:
    provider = _among(providers.NAMES, fields["provider"])
    outcome = _among(names.CALLS, fields["outcome"])
    took = Count(names.PROVIDER_DURATION.name, (provider,), fields["seconds"])
    return [_one(names.PROVIDER_CALLS, provider, outcome), took]


def _notified(fields: Fields, *, outcome: str) -> list[Count]:
    return [_one(names.NOTIFICATION_ATTEMPTS, _among(providers.CHANNELS, fields["channel"]), outcome)]


RULES: dict[str, Callable[[Fields], Sequence[Count]]] = {
    "step.finished": functools.partial(_ended, outcome="succeeded"),
    "step.skipped": functools.partial(_ended, outcome="skipped"),
    "step.failed": lambda fields: _attempt(fields["consumer"], fields["kind"]),
    "step.waits": _waits,
    "step.database_down": lambda fields: _attempt(fields["consumer"], "outage"),
    "step.begun": _begun,
    "delivery.finished": _finished,
    "provider.called": _called,
    "relay.published": lambda fields: [Count(names.RELAYED.name, (), fields["messages"])],
    "relay.batch_settled": lambda fields: [Count(names.RELAY_BATCH.name, (), fields["seconds"])],
    "message.postponed": lambda fields: [_one(names.POSTPONED)],
    "message.parked": lambda fields: [_one(names.PARKED)],
    "message.buried": lambda fields: [_one(names.BURIED, consumer_label(fields["consumer"]))],
    "notification.sent": functools.partial(_notified, outcome="sent"),
    "notification.suppressed": functools.partial(_notified, outcome="suppressed"),
    "notification.adopted": functools.partial(_notified, outcome="adopted"),
}

CHANNELS = {
    consumer: provider.name
    for provider in providers.ALL
    if provider.is_channel
    for consumer in provider.consumers
}
"""The channels of notifications by the tasks that deliver them."""


def _one(metric: names.Metric, *labels: str) -> Count:
    return Count(metric.name, labels, 1.0)


def _among(known: Sequence[str], value: str) -> str:
    return value if value in known else OTHER
