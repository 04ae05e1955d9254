"""
The backend for Django's tasks framework, `outbox.django_tasks.OutboxBackend` in the setting `TASKS`.

`enqueue` publishes a message in the caller's transaction, and a Celery task runs the function. What needs
`django.tasks`, or the django-tasks package on Django 5.2, is in `library` and in the modules that import it;
projects that have neither never load them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outbox.django_tasks.backend import OutboxBackend as OutboxBackend


def __getattr__(name: str) -> Any:
    """The backend, loaded when `TASKS` names it: the tasks framework may not be installed."""
    if name == "OutboxBackend":
        from outbox.django_tasks.backend import OutboxBackend

        return OutboxBackend
    raise AttributeError(name)
