"""Providers whose responses a test corrupts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from notifications import channels
from orders import adapters
from outbox.resilience import AlwaysClosed
from tests.conftest import close_breakers
from tests.hostile.spoiling import SpoiltWorld


def closed(_: str) -> AlwaysClosed:
    """A breaker that never opens, so that the response after many failures is still received."""
    return AlwaysClosed()


@pytest.fixture
def spoilt(world, settings, tmp_path) -> Iterator[SpoiltWorld]:
    """The sandbox's providers behind spoilers, which initially pass everything on unchanged."""
    made = SpoiltWorld(world, settings)
    account = json.loads(Path(settings.FCM_CREDENTIALS_FILE).read_text())
    credentials = tmp_path / "fcm.json"
    credentials.write_text(json.dumps({**account, "token_uri": f"{made.url_of('push')}/token"}))
    settings.FCM_CREDENTIALS_FILE = str(credentials)
    adapters.forget()
    channels.forget()
    close_breakers()
    yield made
    made.stop()
    adapters.forget()
    channels.forget()
    close_breakers()


@pytest.fixture
def no_breakers(settings) -> None:
    settings.OUTBOX_BREAKER_FACTORY = f"{__name__}.closed"
