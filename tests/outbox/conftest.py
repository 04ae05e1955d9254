"""Workflows for the tests of the outbox itself."""

from __future__ import annotations

import pytest

from outbox import registry
from tests.outbox.events import Happened


@pytest.fixture
def subscribed(monkeypatch):
    """Subscribe handlers to `Happened` for one test only; call it with the handlers."""
    monkeypatch.setattr(registry, "_events", dict(registry._events))
    monkeypatch.setattr(registry, "_workflows", {name: dict(w) for name, w in registry._workflows.items()})

    def subscribe(*handlers):
        registry.register([Happened])
        registry.subscribe([(Happened, handler) for handler in handlers])

    return subscribe


OUTBOX_BACKEND = "outbox.django_tasks.OutboxBackend"


@pytest.fixture
def tasks(settings):
    """Let Django's tasks go through the outbox, by backends with and without priorities."""
    settings.TASKS = {
        "default": {
            "BACKEND": OUTBOX_BACKEND,
            "QUEUES": ["default", "newsletters", "orders"],
            "OPTIONS": {"queues": {"newsletters": "email"}},
        },
        "prioritized": {
            "BACKEND": OUTBOX_BACKEND,
            "OPTIONS": {"queues": {"default": {50: "orders", 0: "jobs", -100: "email"}}},
        },
        "anywhere": {"BACKEND": OUTBOX_BACKEND, "QUEUES": []},
    }
    from tests.outbox.django_tasks import work

    yield settings.TASKS
    work.CALLS.clear()
    work.TROUBLES.clear()
