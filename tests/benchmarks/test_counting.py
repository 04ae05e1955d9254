"""Counting statements and transactions, in blocks and outside of them."""

from __future__ import annotations

import pytest
from django.db import connection, transaction

from benchmarks.counting import Counter
from orders.models import Product


@pytest.fixture
def counter(transactional_db):
    return Counter()


def test_a_statement_outside_a_block_is_a_transaction(counter):
    with counter.watching():
        Product.objects.count()
        Product.objects.count()
    assert (counter.queries, counter.transactions) == (2, 2)


def test_a_block_is_one_transaction_however_many_statements(counter):
    with counter.watching(), transaction.atomic():
        Product.objects.count()
        Product.objects.count()
    assert (counter.queries, counter.transactions) == (2, 1)


def test_a_block_rolled_back_is_a_transaction_too(counter):
    with counter.watching(), pytest.raises(ZeroDivisionError), transaction.atomic():
        Product.objects.count()
        raise ZeroDivisionError
    assert counter.transactions == 1


def test_nothing_is_counted_afterwards(counter):
    with counter.watching():
        pass
    Product.objects.count()
    with transaction.atomic():
        Product.objects.count()
    assert (counter.queries, counter.transactions) == (0, 0)
    assert "commit" not in vars(connection)
