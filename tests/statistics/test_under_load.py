"""Counters never fall, and in the end equal what was committed, whatever happens at the same time."""

from __future__ import annotations

import random
import threading
import time

import pytest
from django.db import connection, transaction

from outbox.models import Attempt, DeadLetter, StatisticsCursor
from outbox.statistics import rolling_up, totals
from tests.statistics.conftest import in_buckets
from tests.statistics.test_counting import bury, fail

SECONDS = 4.0
WRITERS = 4


class RolledBack(Exception):
    pass


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_counters_equal_the_rows_that_were_committed(roll_up):
    """Late and failed transactions, two roll-ups, retention, and dead letters that are resolved meanwhile."""
    until, committed, problems = time.monotonic() + SECONDS, [0] * WRITERS, []
    resolved = [0]

    def thread(work):
        def run():
            try:
                while time.monotonic() < until:
                    work()
            except Exception as error:
                problems.append(error)
            finally:
                connection.close()

        return threading.Thread(target=run)

    def write(number):
        dice = random.Random(number)

        def work():
            rows = dice.randint(1, 3)
            try:
                with transaction.atomic():
                    for _ in range(rows):
                        fail(consumer=f"tests.writer_{number}")
                    time.sleep(dice.choice([0, 0, 0.01, 0.2]))
                    if dice.random() < 0.2:
                        raise RolledBack
            except RolledBack:
                return
            committed[number] += rows

        return work

    def resolve():
        row = bury(f"{resolved[0]}-{time.monotonic()}")
        time.sleep(0.02)
        DeadLetter.objects.filter(pk=row.pk).update(resolution="discarded", resolved_at=row.buried_at)
        resolved[0] += 1

    def prune():
        cursor = StatisticsCursor.objects.filter(pk="attempts.failed").first()
        if cursor:
            Attempt.objects.filter(pk__lte=cursor.counted_until).delete()
        time.sleep(0.05)

    before = {}

    def watch():
        for name, found in totals.read(["attempts.failed", "dead_letters.buried"]).items():
            for labels, amount in found.items():
                assert amount.count >= before.get((name, labels), 0), (name, labels)
                before[name, labels] = amount.count

    threads = [thread(write(number)) for number in range(WRITERS)]
    threads += [thread(work) for work in (rolling_up.roll_up, rolling_up.roll_up, prune, watch, resolve)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert problems == []
    expected = {(f"tests.writer_{number}", "retried"): count for number, count in enumerate(committed) if count}
    assert sum(committed) > 20

    for _ in range(2):
        found = totals.read(["attempts.failed", "dead_letters.resolved"])
        assert {labels: one.count for labels, one in found["attempts.failed"].items()} == expected
        roll_up()
    assert in_buckets("attempts.failed") == sum(committed)
    assert in_buckets("dead_letters.resolved") == resolved[0]
