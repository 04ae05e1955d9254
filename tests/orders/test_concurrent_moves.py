"""Illegal moves are refused by the database itself, however many writers try at once."""

from __future__ import annotations

import contextlib
import itertools
import threading

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from orders import moves
from orders.models import Order
from tests.factories import place

pytestmark = pytest.mark.django_db(transaction=True)

WRITERS = 8


def test_writers_that_ignore_the_version_still_move_an_order_along_the_table():
    """
    Each writes statuses by hand, as no code here does; a trigger records the moves that the database allowed.
    """
    order = place()
    with connection.cursor() as cursor:
        cursor.execute(WITNESS)
    together = threading.Barrier(WRITERS)

    def write(first):
        together.wait()
        for status in itertools.islice(itertools.cycle(moves.Status), first, first + 2 * len(moves.Status)):
            final = status in moves.FINAL
            changes = {"due_at": None if final else Now(), "finished_at": Now() if final else None}
            with contextlib.suppress(IntegrityError), transaction.atomic():
                Order.objects.filter(pk=order.pk).update(status=status, **changes)
        connection.close()

    writers = [threading.Thread(target=write, args=[number]) for number in range(WRITERS)]
    try:
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        with connection.cursor() as cursor:
            cursor.execute("SELECT before, after FROM witnessed ORDER BY number")
            seen = cursor.fetchall()
    finally:
        with connection.cursor() as cursor:
            cursor.execute(END_OF_WITNESS)

    assert seen[0][0] == moves.Status.PLACED
    assert all(after in moves.MOVES[moves.Status(before)] for before, after in seen)
    assert all(one[1] == following[0] for one, following in itertools.pairwise(seen))
    assert Order.objects.get().status in moves.FINAL


WITNESS = """
CREATE TABLE witnessed (number serial, before text, after text);
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO witnessed (before, after) VALUES (OLD.status, NEW.status);
    RETURN NULL;
END $$;
CREATE TRIGGER witness AFTER UPDATE OF status ON orders_order
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION witness();
"""
END_OF_WITNESS = "DROP TRIGGER witness ON orders_order; DROP FUNCTION witness(); DROP TABLE witnessed"
