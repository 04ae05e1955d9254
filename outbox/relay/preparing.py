"""What has to be sent of claimed messages: the handlers are asked, and first deliveries written down."""

from __future__ import annotations

import bisect
import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from celery import current_app
from celery.canvas import Signature

from outbox import crash_points, registry, telemetry
from outbox.broker import dispatch
from outbox.contracts import Message
from outbox.relay import deliveries
from outbox.relay.claims import Claimed

PROBED_EVERY = 15
"""First deliveries to one queue after which a probe is sent: within a batch that holds many, because one that
is lost would not be found before the whole batch has been worked off, should consumers turn out to be slow; and
over all batches to a queue that is slow already."""

FEW = 2 * PROBED_EVERY
"""So many of a batch for one queue are sent without, unless it is slow: the sweep's own probe behind them is
soon enough."""

_since: Counter[str] = Counter()
"""First deliveries to each queue since the last probe that this process sent there."""


@dataclasses.dataclass(slots=True)
class Ready:
    """A claimed message with the canvases of its workflows, and what has to be sent of them."""

    row: Claimed
    message: Message
    canvases: dict[str, Signature]
    sendings: list[dispatch.Sending] = dataclasses.field(default_factory=list)
    queue: str | None = None
    """Where a redelivery goes; None if nobody follows it."""
    part: int = 0
    """Of its batch: how many times probes are sent before it."""


def build(row: Claimed) -> Ready:
    """
    What has to be started: all of a message's workflows, or the one that is redelivered.

    Raises:
        registry.UnknownWorkflow: if a workflow that is named has gone, or is not here yet.
        Exception: whatever a handler raises; that is the message's own failure.
    """
    message = Message.of(row, registry.load(row.event_name, row.event_version, row.payload))
    workflows = _workflows(row, message)
    canvases = {name: canvas for name, handler in workflows.items() if (canvas := handler(message)) is not None}
    return Ready(row, message, canvases)


def _workflows(row: Claimed, message: Message) -> dict[str, registry.Handler]:
    """All of a message's workflows, or those that are named."""
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
    Write first deliveries down, with probes between many; say of all what has to be sent.

    A delivery that is written down and not sent is sent again: its message is still to be delivered.
    """
    queues = [_queues(order) for order in built]
    marks = _cut(built, [each.values() for each in queues])
    firsts = [
        deliveries.First(order.row.id, name, order.row.redeliveries, queue, order.part)
        for order, each in zip(built, queues, strict=True)
        for name, queue in each.items()
    ]
    claim = built[0].row.claim if built else None
    recorded, marks = deliveries.record(firsts, marks=marks, claim=claim)
    crash_points.reached("relay.written_down")
    marks = _joined(built, marks)
    _count(built, [each.values() for each in queues], marks)
    held_back = {(first.message_id, first.workflow) for first in firsts} - recorded
    followed = recorded | {(order.row.id, name) for order in built if order.queue for name in order.canvases}
    for order in built:
        order.sendings = [
            sending(order, name, followed=(order.row.id, name) in followed)
            for name in order.canvases
            if (order.row.id, name) not in held_back
        ]
    return built, marks


def _queues(order: Ready) -> dict[str, str]:
    """Where first deliveries go that are followed; of a redelivery, that is noted with it."""
    found = {name: deliveries.queue_of(current_app, canvas) for name, canvas in order.canvases.items()}
    if order.row.redelivers:
        order.queue = next(iter(found.values()), None)
        return {}
    return {name: queue for name, queue in found.items() if queue is not None}


def _cut(built: Sequence[Ready], queues: Sequence[Iterable[str]]) -> list[deliveries.Mark]:
    """Cut what is sent into parts, with a probe behind each: of what is much for a queue, and if it is slow."""
    much = {queue for queue, number in Counter(chain(*queues)).items() if number > FEW}
    since = Counter({queue: number for queue, number in _since.items() if queue not in much})
    part, marks = 0, []
    for order, each in zip(built, queues, strict=True):
        order.part = part
        since.update(each)
        if full := [queue for queue in set(each) if since[queue] >= PROBED_EVERY]:
            part += 1
            marks += [deliveries.Mark(queue, part, if_slow=queue not in much) for queue in full]
            for queue in full:
                del since[queue]
    return marks + [deliveries.Mark(queue, part + 1) for queue in much if since[queue] > 0]


def _joined(built: Sequence[Ready], marks: Sequence[deliveries.Mark]) -> list[deliveries.Mark]:
    """Join the parts again between which no probe is sent."""
    parts = sorted({mark.part for mark in marks})
    for order in built:
        order.part = bisect.bisect_right(parts, order.part)
    return [dataclasses.replace(mark, part=bisect.bisect_right(parts, mark.part)) for mark in marks]


def _count(built: Sequence[Ready], queues: Sequence[Iterable[str]], marks: Sequence[deliveries.Mark]) -> None:
    """Count what is sent to each queue behind its last probe."""
    last = {mark.queue: mark.part for mark in marks}
    for queue in last:
        del _since[queue]
    for order, each in zip(built, queues, strict=True):
        _since.update(queue for queue in each if order.part >= last.get(queue, 0))


def sending(order: Ready, workflow: str, *, followed: bool) -> dispatch.Sending:
    if not followed:
        telemetry.emit("delivery.not_followed", workflow=workflow, message_id=str(order.row.id))
    headers = order.message.headers(workflow=workflow, generation=order.row.redeliveries if followed else None)
    return dispatch.Sending(order.canvases[workflow], headers)
