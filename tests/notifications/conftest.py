"""Fresh channels, without the settings of other tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from notifications import channels


@pytest.fixture(autouse=True)
def _fresh_channels() -> Iterator[None]:
    channels.forget()
    yield
    channels.forget()
