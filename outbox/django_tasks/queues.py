"""Which Celery queue takes a task, by its queue name and priority: `OPTIONS["queues"]` of a backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from django.conf import settings

Queues: TypeAlias = Mapping[str, "str | Mapping[int, str]"]
"""
By queue name: a Celery queue, or several by the lowest priority that they take, as in
`{"default": {50: "urgent", -100: "celery"}}`.
"""

DEFAULT = "default"
"""The queue name of tasks that name none. Celery's own routes say where they go."""


def of_backend(alias: str) -> Queues:
    """The queues of the backend with this alias in `TASKS`; empty if there is none any more."""
    backend: Mapping[str, Any] = getattr(settings, "TASKS", {}).get(alias, {})
    found: Queues = backend.get("OPTIONS", {}).get("queues", {})
    return found


def celery_queue(queues: Queues, queue_name: str, priority: int) -> str:
    """The Celery queue of a task; empty where Celery's routes decide."""
    named = queues.get(queue_name, "" if queue_name == DEFAULT else queue_name)
    if isinstance(named, str):
        return named
    lowest_first = sorted(named)
    reached = [lowest for lowest in lowest_first if lowest <= priority]
    return named[reached[-1] if reached else lowest_first[0]]


def has_priorities(queues: Queues, queue_name: str) -> bool:
    """Whether tasks of this queue name go to one Celery queue or another by their priority."""
    return not isinstance(queues.get(queue_name, ""), str)


def celery_queues(queues: Queues, queue_names: set[str]) -> Iterator[str]:
    """All Celery queues by name that tasks of these and of the mapped queue names may go to."""
    for queue_name in sorted(queue_names | set(queues)):
        named = queues.get(queue_name, "" if queue_name == DEFAULT else queue_name)
        yield from ([named] if isinstance(named, str) else named.values())
