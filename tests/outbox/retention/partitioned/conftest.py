"""Each test begins with an unpartitioned table; the partitioning is undone after it."""

from __future__ import annotations

import datetime as dt

import pytest

from outbox.models import OutboxMessage
from outbox.retention import partition_table
from tests.outbox.retention.partitioned.table import SHAPE, shape


@pytest.fixture(autouse=True)
def in_one_piece_again(transactional_db):
    yield
    OutboxMessage.objects.all().delete()
    partition_table.undo(patience=dt.timedelta(seconds=30))
    assert shape() == SHAPE


@pytest.fixture(scope="module", autouse=True)
def shape_before(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock():
        SHAPE.update(shape())
