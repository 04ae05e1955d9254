"""Backups for the tests of restores."""

from __future__ import annotations

import pytest

from tests.restore.backups import Backup


@pytest.fixture
def backup(drain):
    """A backup of the database, to be taken and restored."""
    backup = Backup()
    yield backup
    backup.drop()
