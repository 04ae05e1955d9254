"""Every promise is examined: what breaks it, and nothing else, makes its invariant fail, and no other."""

from __future__ import annotations

import pytest
from django.db import connection

from outbox import models, promises, verification
from tests.verification.corruptions import CORRUPTIONS, MORE

pytestmark = pytest.mark.django_db

NAMES = [invariant.name for invariant in promises.invariants() if not invariant.asks_providers]


def spoil(books, sql):
    """Break something in the test's transaction."""
    ids = {name: str(order.pk) for name, order in vars(books).items()}
    with connection.cursor() as cursor:
        cursor.execute(sql, {**ids, "unknown": str(models.new_message_id())})
        assert cursor.rowcount, "the corruption changed nothing"


def test_a_world_in_order_passes(books):
    report = verification.run()

    assert report.failed == []
    assert [finding.verdict for finding in report.findings] == ["ok"] * len(NAMES)


def test_every_invariant_has_a_corruption():
    assert sorted(CORRUPTIONS) == sorted(NAMES)


WAYS = [*CORRUPTIONS.items(), *MORE]


@pytest.mark.parametrize(("name", "sql"), WAYS, ids=[name for name, _ in WAYS])
def test_what_breaks_a_promise_makes_its_invariant_fail_and_no_other(books, name, sql):
    spoil(books, sql)
    report = verification.run()

    assert (report.failed, report.passed) == ([name], False)
    [finding] = [finding for finding in report.findings if finding.count]
    assert finding.ids
    assert finding.command
