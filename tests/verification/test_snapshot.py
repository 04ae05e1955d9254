"""A run is safe on a live system: one snapshot, read-only."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from orders.models import Product
from outbox.verification import examination
from tests.factories import ProductFactory


def test_all_queries_see_one_snapshot_and_none_may_write(transactional_db, only, monkeypatch):
    """Another transaction commits between two queries; both queries see the same data."""
    counts, read = [], examination._read

    def reading(cursor, invariant, *rest):
        if counts:
            writer = threading.Thread(target=commit_a_product)
            writer.start()
            writer.join(10)
        cursor.execute("SELECT count(*) FROM orders_product")
        counts.append(cursor.fetchone()[0])
        return read(cursor, invariant, *rest)

    monkeypatch.setattr(examination, "_read", reading)
    only({}, {}, {"sql": "SELECT number::text FROM nextval('orders_number') AS number"})
    with pytest.raises(Exception, match="read-only transaction"):
        examination.run()

    assert counts == [0, 0, 0]
    assert Product.objects.count() == 2


def commit_a_product():
    ProductFactory()
    connection.close()
