"""What is published when a task is enqueued. Its arguments are not in it: they are in the task's own row."""

from __future__ import annotations

import dataclasses

from outbox.contracts import Event


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskEnqueued(Event):
    """A function is to be called; the message's id is the id of its result."""

    name = "outbox.task_enqueued"
    key_field = "task"

    task: str
    """The dotted path of the task."""
    backend: str
    queue_name: str
    priority: int
