"""
The backend: which tasks it takes, and where a task and its result go.

Decorators make backends while apps are still loading, so that what needs models is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from celery import current_app
from django.apps import apps
from django.core import checks

from outbox.django_tasks import queues
from outbox.django_tasks.library import BaseTaskBackend, InvalidTask, Task, TaskResult, task_enqueued

LONGEST_PATH = 200
"""Characters of a task's path: the key of its message, and so what finds its messages and dead letters."""


class OutboxBackend(BaseTaskBackend):
    """
    Enqueues tasks in the caller's transaction; the relay and Celery deliver them.

    `OPTIONS["queues"]` maps queue names to Celery's (see `queues`). With priorities in it, tasks may have one.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.celery_queues: queues.Queues = self.options.get("queues", {})
        self.supports_priority = any(
            queues.has_priorities(self.celery_queues, name) for name in self.celery_queues
        )

    def validate_task(self, task: Task) -> None:
        """
        Refuse what could not be run as it says.

        Raises:
            InvalidTask: as documented by Django; if the path of the task is too long; or if it has a priority
                and `OPTIONS` names no Celery queues by priority for its queue name.
        """
        super().validate_task(task)
        if len(task.module_path) > LONGEST_PATH:
            raise InvalidTask(f"The path of a task must not exceed {LONGEST_PATH} characters.")
        if task.priority and not queues.has_priorities(self.celery_queues, task.queue_name):
            raise InvalidTask(
                f"Backend does not support setting priority of tasks in queue '{task.queue_name}'."
            )

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """
        Publish the task with the current transaction; without one, at once.

        Raises:
            InvalidTask: if the task is not valid for this backend.
            TypeError: if an argument is no JSON value.
            ValueError: if an argument is one that PostgreSQL cannot store, such as NaN.
        """
        from outbox.django_tasks import results

        self.validate_task(task)
        result = results.enqueue(task, args, kwargs)
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """
        Return the result as it stands.

        Raises:
            TaskResultDoesNotExist: if there is none with this id, or none any more.
        """
        from outbox.django_tasks import results

        return results.get(result_id)

    def check(self, **_: Any) -> list[checks.CheckMessage]:
        """The system checks of this backend: the app is installed, and Celery knows the queues."""
        return list(self._problems())

    def _problems(self) -> Iterator[checks.CheckMessage]:
        if not apps.is_installed("outbox"):
            yield checks.Error(
                f"TASKS[{self.alias!r}] uses OutboxBackend, and the app is not installed.",
                hint="Add 'outbox' to INSTALLED_APPS.",
                id="outbox.E002",
            )
        if current_app.conf.task_create_missing_queues:
            return
        known = set(current_app.amqp.queues)
        for name in sorted({*queues.celery_queues(self.celery_queues, self.queues)} - {"", *known}):
            yield checks.Error(
                f"TASKS[{self.alias!r}] sends tasks to the Celery queue {name!r}, which does not exist.",
                hint='Add it to task_queues, or map the queue name to another one in OPTIONS["queues"].',
                id="outbox.E003",
            )
