"""The life of an order: one table in code, the same in the database, and an immutable history."""

from __future__ import annotations

import itertools

import pytest
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from orders import claims, moves, transitions
from orders.models import Order, OrderTransition, Product
from tests.factories import ProductFactory, place

pytestmark = pytest.mark.django_db(transaction=True)


def force(order, status):
    final = status in moves.FINAL
    Order.objects.filter(pk=order.pk).update(
        status=status, due_at=None if final else Now(), finished_at=Now() if final else None
    )


def reach(order, target):
    """Move an order to a status by legal moves, the shortest way."""
    ways = [[moves.Status.PLACED]]
    while ways[0][-1] != target:
        ways = [*ways[1:], *([*ways[0], following] for following in moves.MOVES[ways[0][-1]])]
    for status in ways[0][1:]:
        force(order, status)


@pytest.mark.parametrize("before", moves.Status)
def test_the_database_allows_the_moves_of_the_table_and_refuses_all_others(before):
    for after in moves.Status:
        if after == before:
            continue
        order = place()
        reach(order, before)
        if after in moves.MOVES[before]:
            force(order, after)
        else:
            with pytest.raises(IntegrityError, match="cannot move"), transaction.atomic():
                force(order, after)


def test_the_code_refuses_what_the_table_does_not_have():
    for before, after in itertools.product(moves.Status, repeat=2):
        if after not in moves.MOVES[before]:
            with pytest.raises(moves.IllegalMove):
                moves.check(before=before, after=after)


def test_a_late_mover_is_fenced_off():
    order = place()
    late = Order.objects.get(pk=order.pk)
    with transaction.atomic():
        transitions.move(Order.objects.get(pk=order.pk), to=moves.Status.VALIDATED)

    with pytest.raises(transitions.Fenced), transaction.atomic():
        transitions.move(late, to=moves.Status.REJECTED)
    assert Order.objects.get().status == moves.Status.VALIDATED


def test_the_history_cannot_be_changed():
    place()
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        OrderTransition.objects.update(note="it was different")


def test_an_unfinished_order_is_always_due():
    order = place()
    with pytest.raises(IntegrityError, match="unfinished_orders_are_due"), transaction.atomic():
        Order.objects.filter(pk=order.pk).update(due_at=None)


def test_stock_that_does_not_add_up_is_refused():
    ProductFactory(stock=5)
    with pytest.raises(IntegrityError, match="stock_adds_up"), transaction.atomic():
        Product.objects.update(on_hand=6)


def test_a_claim_is_exclusive_until_its_lease_ends():
    order = place()
    placed = frozenset({moves.Status.PLACED})
    first = claims.claim(order.pk, only_from=placed, lease=transitions.LEASE)
    assert first is not None
    assert claims.claim(order.pk, only_from=placed, lease=transitions.LEASE) is None

    Order.objects.update(lease_until=Now())
    second = claims.claim(order.pk, only_from=placed, lease=transitions.LEASE)
    assert second is not None
    assert second.version == first.version + 1
    with pytest.raises(transitions.Fenced), transaction.atomic():
        transitions.move(first, to=moves.Status.VALIDATED)
