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
