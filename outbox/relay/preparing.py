"""Prepares claimed messages for sending: calls the handlers and records first deliveries."""

from __future__ import annotations

import bisect
import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from celery import current_app
from celery.canvas import Signature

from outbox import crash_points, registry, telemetry, tracing
from outbox.broker import dispatch
from outbox.contracts import Message
from outbox.relay import deliveries
from outbox.relay.claims import Claimed

PROBED_EVERY = 15
"""A probe is sent after this many first deliveries to one queue: within a large batch, so that a lost copy is
found before slow consumers have processed the whole batch; and across batches, if the queue is already slow."""

FEW = 2 * PROBED_EVERY
"""Up to this many deliveries of a batch to one queue need no probe unless the queue is slow: the sweep's own
probe comes soon enough."""

_since: Counter[str] = Counter()
"""First deliveries to each queue since the last probe that this process sent there."""


@dataclasses.dataclass(slots=True)
class Ready:
    """A claimed message with the canvases of its workflows, and those of them that must be sent."""

    row: Claimed
    message: Message
    canvases: dict[str, Signature]
    sendings: list[dispatch.Sending] = dataclasses.field(default_factory=list)
    queue: str | None = None
    """The queue of a redelivery; None if it is not followed."""
    part: int = 0
    """The part of the batch: how many times probes are sent before this message."""


def build(row: Claimed) -> Ready:
    """
    Build the canvases of a message's workflows, or of the one that is redelivered.

    Raises:
        registry.UnknownWorkflow: if this code does not have a workflow that is named.
        Exception: whatever a handler raises; that counts as the message's own failure.
    """
    message = Message.of(row, registry.load(row.event_name, row.event_version, row.payload))
    workflows = _workflows(row, message)
    canvases = {name: canvas for name, handler in workflows.items() if (canvas := handler(message)) is not None}
    return Ready(row, message, canvases)


def _workflows(row: Claimed, message: Message) -> dict[str, registry.Handler]:
    """All workflows of a message, or those that are named."""
    if row.redelivers:
        found = registry.workflows_for(message.event, only=[row.redelivers])
        found = {name: handler for name, handler in found.items() if name == row.redelivers}
        unknown = [] if found else [row.redelivers]
    else:
        found = registry.workflows_for(message.event, only=row.workflows)
        unknown = [wanted for wanted in row.workflows if not any(name.startswith(wanted) for name in found)]
    if unknown:
        raise registry.UnknownWorkflow(f"{row.event_name} starts no {', '.join(unknown)} in this code")
    return found


def written_down(built: Sequence[Ready]) -> tuple[Sequence[Ready], list[deliveries.Mark]]:
    """
    Record first deliveries, with probes between many of them, and set what must be sent for each message.

    A delivery that is recorded but not sent is sent again, because its message is still undelivered.
    """
    queues = [_queues(one) for one in built]
    marks = _cut(built, [each.values() for each in queues])
    firsts = [
        deliveries.First(one.row.id, name, one.row.redeliveries, queue, one.part)
        for one, each in zip(built, queues, strict=True)
        for name, queue in each.items()
    ]
    claim = built[0].row.claim if built else None
    recorded, marks = deliveries.record(firsts, marks=marks, claim=claim)
    crash_points.reached("relay.written_down")
    marks = _joined(built, marks)
    _count(built, [each.values() for each in queues], marks)
    held_back = {(first.message_id, first.workflow) for first in firsts} - recorded
    followed = recorded | {(one.row.id, name) for one in built if one.queue for name in one.canvases}
    for one in built:
        one.sendings = [
            sending(one, name, followed=(one.row.id, name) in followed)
            for name in one.canvases
            if (one.row.id, name) not in held_back
        ]
    return built, marks


def _queues(one: Ready) -> dict[str, str]:
    """The queues of followed first deliveries; that of a redelivery is stored in `one.queue`."""
    found = {name: deliveries.queue_of(current_app, canvas) for name, canvas in one.canvases.items()}
    if one.row.redelivers:
        one.queue = next(iter(found.values()), None)
        return {}
    return {name: queue for name, queue in found.items() if queue is not None}


def _cut(built: Sequence[Ready], queues: Sequence[Iterable[str]]) -> list[deliveries.Mark]:
    """Split a batch into parts, with a probe behind each, for queues with many messages and for slow ones."""
    much = {queue for queue, number in Counter(chain(*queues)).items() if number > FEW}
    since = Counter({queue: number for queue, number in _since.items() if queue not in much})
    part, marks = 0, []
    for one, each in zip(built, queues, strict=True):
        one.part = part
        since.update(each)
        if full := [queue for queue in set(each) if since[queue] >= PROBED_EVERY]:
            part += 1
            marks += [deliveries.Mark(queue, part, if_slow=queue not in much) for queue in full]
            for queue in full:
                del since[queue]
    return marks + [deliveries.Mark(queue, part + 1) for queue in much if since[queue] > 0]


def _joined(built: Sequence[Ready], marks: Sequence[deliveries.Mark]) -> list[deliveries.Mark]:
    """Join parts that have no probe between them."""
    parts = sorted({mark.part for mark in marks})
    for one in built:
        one.part = bisect.bisect_right(parts, one.part)
    return [dataclasses.replace(mark, part=bisect.bisect_right(parts, mark.part)) for mark in marks]


def _count(built: Sequence[Ready], queues: Sequence[Iterable[str]], marks: Sequence[deliveries.Mark]) -> None:
    """Count the deliveries to each queue behind its last probe."""
    last = {mark.queue: mark.part for mark in marks}
    for queue in last:
        del _since[queue]
    for one, each in zip(built, queues, strict=True):
        _since.update(queue for queue in each if one.part >= last.get(queue, 0))


def sending(one: Ready, workflow: str, *, followed: bool) -> dispatch.Sending:
    if not followed:
        telemetry.emit("delivery.not_followed", workflow=workflow, message_id=str(one.row.id))
    headers = one.message.headers(workflow=workflow, generation=one.row.redeliveries if followed else None)
    tracing.stamp(headers)
    return dispatch.Sending(one.canvases[workflow], headers)
