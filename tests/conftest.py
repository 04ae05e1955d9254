"""What every test may use."""

from __future__ import annotations

import pytest

from outbox import testing


@pytest.fixture
def drain(transactional_db):
    """Work off all that is published, with the real broker; see `outbox.testing.drain`."""
    testing.purge()
    yield testing.drain
    testing.purge()
